import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { runIsolated, type SpawnOptions, spawnIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { census, settled } from '../helpers/census.js';
import { ask, askFully, insideFixture, type Question, startProbe, toArguments, withFixtures } from '../helpers/probe.js';
import { Marker, manySpawns, piles, story } from './story.js';

const run = (questions: readonly Question[], options: SpawnOptions = {}) =>
  runIsolated(insideFixture('probe'), toArguments(questions), withFixtures({ init: true, ...options }));

/** Field of /proc/PID/status. */
const statusOf = (pid: number, field: string): string => new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '';
const parentOf = (pid: number): number => Number(statusOf(pid, 'PPid'));

const messageOf = async (command: string, options: SpawnOptions): Promise<string> =>
  runIsolated(command, [], withFixtures(options)).then(
    () => 'it was started',
    (error: Error) => error.message,
  );

describe('with init', () => {
  test('the program is not PID 1, init is', async () => {
    const [status, { processes }] = await ask(['status', 'processes'], { init: true });
    expect([status.pid, status.ppid, status.sid]).toEqual([2, 1, 2]);
    expect(processes.map(({ pid, ppid, comm }) => [pid, ppid, comm])).toEqual([
      [1, 0, expect.any(String)],
      [2, 1, 'probe'],
    ]);
  });

  test('pid is that of the program', async () => {
    const { process: child, lines } = startProbe(['sleep'], { init: true });
    await lines.until('ready');
    const pid = child.pid as number;
    expect(statusOf(pid, 'NSpid').split('\t').at(-1)).toBe('2');
    expect(statusOf(parentOf(pid), 'NSpid').split('\t').at(-1)).toBe('1');
    child.kill('SIGKILL');
    await child.exited;
  });

  test('also of one that is gone by the time that we hear of it', async () => {
    for (let time = 0; time < 50; time++) {
      const child = spawnIsolated(insideFixture('true'), [], withFixtures({ init: true, stdio: 'ignore' }));
      await child.exited;
      expect(child.pid).toBeGreaterThan(1);
    }
  });

  test('the order of events', async () => {
    const child = spawnIsolated(insideFixture('probe'), ['exit', '9'], withFixtures({ init: true }));
    expect(await story(child)).toEqual(['spawn', 'spawned', 'exit 9 null', 'exited exit', 'close 9 null']);
  });

  test.each([0, 1, 127, 255])('exit code %i is the program’s', async (code) => {
    expect(await run([['exit', code]])).toMatchObject({ exitCode: code, signal: null, reason: 'exit' });
  });

  test('kill is a signal to the program', async () => {
    const { process: child, lines } = startProbe([['trap', 'TERM', 'the program has it']], { init: true });
    await lines.until('ready');
    child.kill('SIGTERM');
    await lines.until('the program has it');
    expect(await child.exited).toMatchObject({ exitCode: 0, signal: null });
  });

  test('and its default action is that of any process', async () => {
    const { process: child, lines } = startProbe(['sleep'], { init: true });
    await lines.until('ready');
    child.kill('SIGUSR1');
    expect(await child.exited).toMatchObject({ exitCode: null, signal: 'SIGUSR1', reason: 'signal' });
  });

  test('a signal before the start', async () => {
    const child = startProbe(['sleep'], { init: true }).process;
    child.kill('SIGTERM');
    expect(await child.exited).toMatchObject({ signal: 'SIGTERM', reason: 'signal' });
  });

  test('usage is the program’s', async () => {
    const { usage } = await run([
      ['alloc', '64M'],
      ['spin', 50],
    ]);
    expect(usage.cpuUserMs + usage.cpuSystemMs).toBeGreaterThanOrEqual(45);
    expect(usage.maxRssBytes).toBeGreaterThanOrEqual(64 * 2 ** 20);
  });

  test('orphans that end are reaped', async () => {
    const { answers } = await askFully([['zombies', 40]], { init: true });
    expect(answers[0]).toMatchObject({ errno: null, made: 40, zombies: 0 });
  });

  test('without it they are not', async () => {
    const { answers } = await askFully([['zombies', 40]], {});
    expect(answers[0]).toMatchObject({ errno: null, made: 40, zombies: 40 });
  });

  test('orphans die at the end of the program', async () => {
    const marker = new Marker();
    const result = await run(
      [
        ['orphans', 10, 'quiet'],
        ['exit', 4],
      ],
      { env: marker.env },
    );
    expect(result.exitCode).toBe(4);
    expect(marker.processes()).toEqual([]);
  });

  test('orphans that hold the streams do not keep it', async () => {
    const result = await run([
      ['orphans', 3],
      ['exit', 0],
    ]);
    expect(result).toMatchObject({ exitCode: 0, reason: 'exit' });
  });

  test('the input of the program ends', async () => {
    const { stdout } = await runIsolated(insideFixture('probe'), ['cat'], withFixtures({ init: true, input: 'in' }));
    expect(stdout).toBe('in');
  });

  test('output ends when the program closes it', async () => {
    const child = spawnIsolated('/bin/sh', ['-c', 'exec >&- 2>&-; sleep 1000'], { init: true });
    child.stdout.resume();
    await once(child.stdout, 'end');
    expect(child.exitCode).toBeNull();
    child.kill('SIGKILL');
    await child.exited;
  });

  test('more than three streams', async () => {
    const child = spawnIsolated(
      insideFixture('probe'),
      toArguments([['write-fd', 4, 'four']]),
      withFixtures({ init: true, stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] }),
    );
    const chunks: Buffer[] = [];
    (child.stdio[4] as unknown as NodeJS.ReadableStream).on('data', (chunk) => chunks.push(chunk));
    await once(child, 'close');
    expect(Buffer.concat(chunks).toString()).toBe('four');
  });
});

describe('a program that cannot be executed gives the same message as without init', () => {
  test.each([
    '/no/such/program',
    'no-such-program',
    insideFixture('not-executable'),
    insideFixture('script-bad-interpreter'),
    insideFixture('elf-bad-interpreter'),
    insideFixture('elf-other-arch'),
    insideFixture('text-executable'),
    insideFixture('empty-executable'),
    '/etc',
  ])('%s', async (command) => {
    const [without, withInit] = [await messageOf(command, {}), await messageOf(command, { init: true })];
    expect(without).not.toBe('it was started');
    expect(withInit).toBe(without);
  });

  test('code, step and errno', async () => {
    const errorOf = (options: SpawnOptions) => runIsolated('/no/such/program', [], options).catch((error) => error);
    const [without, withInit] = [await errorOf({}), await errorOf({ init: true })];
    for (const key of ['code', 'errno', 'errnoName', 'syscall', 'step', 'path', 'hint']) expect(withInit[key]).toEqual(without[key]);
  });

  test('a failure before init is that of the plan', async () => {
    const [without, withInit] = [await messageOf('/bin/true', { cwd: '/no/such' }), await messageOf('/bin/true', { cwd: '/no/such', init: true })];
    expect(withInit).toBe(without);
  });
});

describe('init itself', () => {
  test('is no program of the host', async () => {
    const { process: child, lines } = startProbe(['sleep'], { init: true });
    await lines.until('ready');
    const exe = execFileSync('readlink', [`/proc/${parentOf(child.pid as number)}/exe`], { encoding: 'utf8' }).trim();
    expect(exe).toBe('/memfd:cloister-init (deleted)');
    child.kill('SIGKILL');
    await child.exited;
  });

  test('cannot be looked into from inside, nor traced, nor ended', async () => {
    const answers = await ask(
      [
        ['read', '/proc/1/exe'],
        ['open', '/proc/1/exe', 'w'],
        ['open', '/proc/1/mem', 'rw'],
        ['open', '/proc/1/fd/3', 'r'],
        ['ptrace', 1],
        ['kill', 1, 'KILL'],
        ['kill', 1, 'TERM'],
        'status',
      ],
      { init: true },
    );
    expect(answers.slice(0, 5).map((answer) => 'errno' in answer && answer.errno)).toEqual(['EACCES', 'EACCES', 'EACCES', 'EACCES', 'EPERM']);
    // It is dropped: nobody inside may end the PID 1 of a namespace.
    expect(answers.at(-1)).toMatchObject({ pid: 2 });
  });

  test('holds nothing but its pipe', async () => {
    const { process: child, lines } = startProbe(['sleep'], { init: true });
    await lines.until('ready');
    const targets = execFileSync('ls', ['-l', `/proc/${parentOf(child.pid as number)}/fd`], { encoding: 'utf8' });
    expect(targets.match(/-> .*/g)).toEqual([expect.stringMatching(/^-> pipe:/)]);
    child.kill('SIGKILL');
    await child.exited;
  });

  test('its death is that of all', async () => {
    const marker = new Marker();
    const { process: child, lines } = startProbe([['children', 3, 'quiet']], { init: true, env: marker.env });
    await lines.next();
    process.kill(parentOf(child.pid as number), 'SIGKILL');
    expect(await child.exited).toMatchObject({ exitCode: null, signal: 'SIGKILL', reason: 'signal' });
    expect(marker.processes()).toEqual([]);
  });

  test('needs a pid namespace', () => {
    expect(() => spawnIsolated('/bin/true', [], { init: true, namespaces: { pid: 'host' } })).toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'init' takes false when namespaces.pid is not 'new': an init is PID 1; got true]`,
    );
  });
});

test('nothing is left of many', async () => {
  await run([['exit', 0]]);
  const before = census(['descriptors', 'handles', 'descendants']);
  for (let time = 0; time < manySpawns; time++) {
    await run([
      ['orphans', 2, 'quiet'],
      ['exit', 0],
    ]);
    await messageOf('/no/such/program', { init: true });
    await messageOf('/bin/true', { init: true, cwd: '/no/such' });
    const child = spawnIsolated(insideFixture('probe'), ['sleep'], withFixtures({ init: true }));
    if (time % 2 === 0) await once(child, 'spawn');
    child.kill('SIGKILL');
    await child.exited;
  }
  await settled(() => piles(before, census(['descriptors', 'handles', 'descendants'])));
});
