// `npm run demo`: programs of this machine, each in a sandbox of its own, and what they see beside what the host sees.

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { hostname, networkInterfaces } from 'node:os';
import { dirname } from 'node:path';
import { explain, IsolationError, runIsolated, spawnIsolated } from 'cloister';

const color = process.stdout.isTTY && !process.env.NO_COLOR;
const bold = (text) => (color ? `\x1b[1m${text}\x1b[0m` : text);
const dim = (text) => (color ? `\x1b[2m${text}\x1b[0m` : text);
const title = (text) => console.log(`\n${bold(text)}`);
const indent = (text, by = '    ') => text.trimEnd().replace(/^/gm, by);

const which = (name) => (process.env.PATH ?? '').split(':').some((directory) => existsSync(`${directory}/${name}`));

/** Node may live in a home directory, which is not to be seen inside: then it is brought in. */
const hiddenNode = /^\/(root|home|tmp|run)\//.test(process.execPath);
const nodeMounts = hiddenNode ? [{ type: 'bind', source: dirname(dirname(process.execPath)), target: '/opt/node', readonly: true }] : [];
const nodeInside = hiddenNode ? '/opt/node/bin/node' : process.execPath;

async function main() {
  console.log(bold('cloister: programs of this machine, isolated'));
  console.log(
    dim(
      `kernel ${readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim()}, Node ${process.version}, as ${process.getuid() === 0 ? 'root' : 'an ordinary user'}`,
    ),
  );
  await realPrograms();
  await whatIsSeen();
  await copyOnWrite();
  await timeLimit();
  await thePlan();
  await theTime();
}

async function realPrograms() {
  title('1. Real programs in the default sandbox');
  const programs = [
    ['a shell pipeline', 'sh', ['-c', 'ls /usr/bin | cut -c1 | sort | uniq -c | sort -rn | head -3 | tr -s " " | tr "\\n" ";"']],
    which('python3') && [
      'python3',
      'python3',
      ['-c', 'import os, sys; print("python", sys.version.split()[0], "as pid", os.getpid(), "with", len(os.environ), "variables")'],
    ],
    which('perl') && ['perl', 'perl', ['-e', 'printf("perl %vd counts %d processes\\n", $^V, scalar(grep { /^\\d+$/ } map { s!.*/!!r } glob("/proc/*")))']],
    ['node', nodeInside, ['-p', '"node " + process.version + " on " + os.hostname() + " sees " + Object.keys(os.networkInterfaces())'], nodeMounts],
  ].filter(Boolean);
  for (const [name, command, args, mounts = []] of programs) {
    const result = await runIsolated(command, args, { mounts });
    console.log(`  ${name.padEnd(17)} ${result.stdout.trim() || result.stderr.trim()}`);
    console.log(`  ${' '.repeat(17)} ${dim(usageText(result))}`);
    if (result.exitCode !== 0) process.exitCode = 1;
  }
}

function usageText({ exitCode, signal, reason, durationMs, usage }) {
  const how = signal ? `${signal} (${reason})` : `exit ${exitCode}`;
  return `${how}, ${durationMs.toFixed(1)} ms, cpu ${usage.cpuUserMs.toFixed(1)} + ${usage.cpuSystemMs.toFixed(1)} ms, peak ${(usage.maxRssBytes / 2 ** 20).toFixed(1)} MiB`;
}

async function whatIsSeen() {
  title('2. What the host sees, and what a program inside sees');
  const look = `
    echo "$(hostname)"; echo "$$"; id -u; id -g; head -1 /proc/self/uid_map | tr -s ' ' | sed 's/^ //'
    ls -d /proc/[0-9]* | wc -l; ls /sys/class/net | tr '\\n' ' '; echo; wc -l < /proc/self/mountinfo
    ls -A "$HOME" 2>/dev/null | wc -l; sed -n 's/^CapEff:.//p' /proc/self/status; sed -n 's/^NoNewPrivs:.//p' /proc/self/status`;
  const lines = (text) =>
    text
      .trim()
      .split('\n')
      .map((line) => line.trim());
  const inside = lines((await runIsolated('sh', ['-c', look])).stdout);
  const home = process.env.HOME ?? '/';
  const outside = lines(execFileSync('sh', ['-c', look], { env: { ...process.env, HOME: home }, encoding: 'utf8' }));
  outside[0] = hostname();
  outside[6] = Object.keys(networkInterfaces()).join(' ') || outside[6];
  const names = [
    'host name',
    'pid',
    'user id',
    'group id',
    'uid map (in, out, n)',
    'processes',
    'interfaces',
    'mounts',
    'files in the home',
    'capabilities',
    'no_new_privs',
  ];
  row('', 'host', 'inside');
  for (const [index, name] of names.entries()) row(name, outside[index] ?? '', inside[index] ?? '');
}

function row(...cells) {
  const [name, host, inside] = cells.map((cell) => (cell.length > 26 ? `${cell.slice(0, 25)}…` : cell));
  const line = `  ${name.padEnd(21)} ${host.padEnd(27)} ${inside}`;
  console.log(name === '' ? dim(line.trimEnd()) : line);
}

async function copyOnWrite() {
  title('3. A new file in /etc: there inside, not outside');
  const name = '/etc/written-by-the-demo';
  const { stdout } = await runIsolated('sh', ['-c', `echo hello > ${name} && ls -l ${name}`]);
  console.log(`  inside   ${stdout.trim()}`);
  console.log(`  outside  ${existsSync(name) ? `${name} EXISTS` : `${name} does not exist; /etc has ${readdirSync('/etc').length} entries, as before`}`);
  if (existsSync(name)) process.exitCode = 1;
}

async function timeLimit() {
  title('4. A program that would run forever, with timeout: 300');
  const result = await runIsolated('sh', ['-c', 'echo started; while :; do :; done'], { timeout: 300 });
  console.log(`  ${result.stdout.trim()}; ${usageText(result)}`);
}

async function thePlan() {
  title("5. What one spawn does: explain('true')");
  const plan = await explain('true');
  const lines = plan.toString().split('\n');
  const short = lines.map((line) => (line.length > 110 ? `${line.slice(0, 109)}…` : line));
  console.log(indent([...short.slice(0, 14), `… ${lines.length - 28} lines more …`, ...short.slice(-14)].join('\n'), '  '));
  const calls = (side) => plan.steps.filter((step) => step.side === side).length;
  console.log(dim(`  ${calls('parent')} steps ahead of the clone and ${calls('child')} after it`));
}

async function theTime() {
  title('6. Time from the call to the exit of `true`, beside plain child_process.spawn');
  const command = existsSync('/bin/true') ? '/bin/true' : '/usr/bin/true';
  const plain = () => time(() => spawn(command, [], { stdio: 'ignore' }));
  const isolated = () => time(() => spawnIsolated(command, [], { stdio: 'ignore' }));
  for (let i = 0; i < 20; i++) {
    await plain();
    await isolated();
  }
  await compare('now', plain, isolated);
  const ballast = Array.from({ length: 16 }, () => Buffer.alloc(2 ** 26, 1));
  await compare(`with ${ballast.length / 16} GiB in memory`, plain, isolated);
}

async function compare(when, plain, isolated) {
  const [a, b] = [[], []];
  for (let i = 0; i < 60; i++) {
    a.push(await plain());
    b.push(await isolated());
  }
  const median = (times) => times.map(({ total }) => total).sort((x, y) => x - y)[times.length >> 1];
  const hold = (times) => times.map(({ held }) => held).sort((x, y) => x - y)[times.length >> 1];
  const ms = (value) => `${value.toFixed(2)} ms`;
  console.log(`  ${when.padEnd(24)} plain ${ms(median(a)).padStart(9)}  (event loop held ${ms(hold(a))})`);
  console.log(`  ${' '.repeat(24)} isolated ${ms(median(b)).padStart(6)}  (event loop held ${ms(hold(b))})`);
}

function time(start) {
  return new Promise((resolve, reject) => {
    const begin = performance.now();
    const child = start();
    const held = performance.now() - begin;
    child.once('exit', () => resolve({ total: performance.now() - begin, held }));
    child.once('error', reject);
  });
}

try {
  await main();
} catch (error) {
  if (!(error instanceof IsolationError)) throw error;
  console.error(`\n${error.message}`);
  for (const line of error.evidence ?? []) console.error(`  evidence: ${line}`);
  process.exitCode = 1;
}
