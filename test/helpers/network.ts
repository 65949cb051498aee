/** Hosts of the test's own: a Node process in a network that nothing else is in, so that what it makes there is not this machine's. */
import { type ChildOutcome, inChild, type KillOptions } from './harness.js';
import { fixturesDirectory } from './probe.js';

/** `ask`, `serve` and `tell` for the snippet; `program.network` of Linux programs: `ip`, `nft`, `tc`. */
const prologue = `
  import { execFileSync } from 'node:child_process';
  import net from 'node:net';
  import { Bridge, Namespace, reap, runIsolated, spawnIsolated } from 'cloister';
  const mounts = [{ type: 'bind', source: ${JSON.stringify(fixturesDirectory())}, target: '/probe', readonly: true }];
  const words = (questions) => questions.flatMap((question, index) => [...(index > 0 ? ['--'] : []), ...question.map(String)]);
  // Links that come and go meanwhile make it say so.
  const ip = (...args) => JSON.parse(execFileSync('ip', ['-j', ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }) || '[]');
  const run = (command, ...args) => execFileSync(command, args, { encoding: 'utf8' });
  const ask = async (questions, options) => {
    const { stdout, stderr, exitCode } = await runIsolated('/probe/probe', words(questions), { mounts, ...options });
    if (exitCode !== 0 || stderr !== '') throw new Error(stdout + stderr);
    return stdout.trim().split('\\n').map((line) => JSON.parse(line));
  };
  /** A program that gives this text to each connection. */
  const serve = async (text, options, address = '::', port = 8080) => {
    const child = spawnIsolated('/probe/probe', ['serve-tcp', address, String(port), text, '1000'], { mounts, ...options });
    let told = '';
    for await (const chunk of child.stdout) if ((told += chunk).includes('\\n')) break;
    if (!told.includes('"errno":null')) throw new Error(told);
    return child;
  };
  /** What one of the servers says to us. */
  const hear = (port, host) => new Promise((resolve) => {
    let text = '';
    const socket = net.connect({ port, host }, () => socket.end());
    socket.on('data', (chunk) => { text += chunk; });
    socket.on('close', () => resolve(text)).on('error', (error) => resolve(error.code));
  });
  const inNet = ({ fd }) => '--net=/proc/' + process.pid + '/fd/' + fd;
  /** A network of its own, which knows of no subnet of ours: 192.0.2.2, 2001:db8::2. */
  const makeWorld = async () => {
    const world = await Namespace.create('net');
    const inWorld = (...args) => run('nsenter', inNet(world), ...args);
    run('ip', 'link', 'add', 'wan', 'type', 'veth', 'peer', 'name', 'out', 'netns', '/proc/' + process.pid + '/fd/' + world.fd);
    for (const [at, link, v4, v6] of [[run, 'wan', '192.0.2.1/24', '2001:db8::1/64'], [inWorld, 'out', '192.0.2.2/24', '2001:db8::2/64']]) {
      at('ip', 'address', 'add', v4, 'dev', link);
      at('ip', 'address', 'add', v6, 'dev', link, 'nodad');
      at('ip', 'link', 'set', link, 'up');
    }
    return world;
  };
  const refusal = (work) => work.then(() => 'done', (error) => error.name + ' ' + error.code + ' ' + error.message);
  // What still runs dies with us.
  const tell = (value) => { console.log(JSON.stringify(value)); process.exit(0); };
  run('ip', 'link', 'set', 'lo', 'up');
`;

/** What the snippet tells. */
export async function onHost<T>(script: string, options: KillOptions = {}): Promise<T> {
  const outcome = await runHost(script, options);
  if (outcome.exitCode !== 0 || outcome.stderr !== '') throw new Error(`the host failed: ${JSON.stringify(outcome)}`);
  return JSON.parse(outcome.stdout) as T;
}

/** The same, however it ends. */
export function runHost(script: string, options: KillOptions = {}): Promise<ChildOutcome> {
  return inChild(prologue + script, { deadline: 60_000, through: ['unshare', '--net'], ...options });
}
