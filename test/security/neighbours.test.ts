// Other processes: of the host, and of another sandbox.
import { execFileSync, spawn } from 'node:child_process';
import { runIsolated } from 'cloister';
import { describe, expect, onTestFinished, test } from 'vitest';
import { fixture, repository } from '../helpers/fixtures.js';
import { needing, testNeeding } from '../helpers/lane.js';
import { Lines } from '../helpers/lines.js';
import { ask, askHost, parseAnswer, startProbe } from '../helpers/probe.js';
import { type Attack, attempt, insides, successes } from './insides.js';

function outsider(): number {
  const child = spawn('sleep', ['120'], { stdio: 'ignore' });
  onTestFinished(() => void child.kill());
  return child.pid as number;
}

const onPid = (pid: number): readonly Attack[] => [
  { name: 'signal', question: ['kill', pid, 'SIGCONT'], refused: ['ESRCH', 'EPERM'], freed: null },
  { name: 'pidfd', question: ['syscall', 'pidfd_open', pid, 0], refused: ['ESRCH'], freed: null },
  { name: 'trace', question: ['ptrace', pid], refused: ['ESRCH', 'EPERM'], freed: null },
  { name: 'write to its memory', question: ['write-memory', pid], refused: ['ESRCH', 'EPERM'], freed: 'EFAULT' },
  { name: 'its memory as a file', question: ['open', `/proc/${pid}/mem`, 'rw'], refused: ['ENOENT', 'EACCES'], freed: null },
  { name: 'its environment', question: ['read', `/proc/${pid}/environ`], refused: ['ENOENT', 'EACCES'], freed: null },
  { name: 'its root', question: ['ls', `/proc/${pid}/root/`], refused: ['ENOENT', 'EACCES'], freed: null },
  { name: 'its directory', question: ['ls', `/proc/${pid}/cwd/`], refused: ['ENOENT', 'EACCES'], freed: null },
  { name: 'its namespaces', question: ['setns', `/proc/${pid}/ns/net`, 'net'], refused: ['ENOENT', 'EACCES', 'EPERM'] },
];

describe('a process of the host', () => {
  for (const { name, options } of insides) {
    test(`is out of reach of ${name}`, async () => {
      const attacks = onPid(outsider());
      expect(successes(attacks, await attempt(attacks, options))).toEqual([]);
    });
  }

  testNeeding(['root'])('is out of reach even where its number is known, as ids are its own', async () => {
    const attacks = onPid(outsider()).filter(({ name }) => name !== 'pidfd');
    expect(successes(attacks, await attempt(attacks, { namespaces: { pid: 'host' } }))).toEqual([]);
  });

  testNeeding(['root'])('and is reached without a pid and a user namespace, by who has the rights', async () => {
    const attacks = onPid(outsider());
    const found = await attempt(attacks, { namespaces: { pid: 'host', user: 'host' }, capabilities: ['CAP_SYS_PTRACE', 'CAP_KILL', 'CAP_SYS_ADMIN'] });
    for (const { name, freed } of attacks) if (freed !== undefined) expect([name, found.get(name)]).toEqual([name, freed]);
  });

  test('and is signalled without a pid namespace, by who is the same user', async () => {
    const [kill] = await ask([['kill', outsider(), 'SIGCONT']], { namespaces: { pid: 'host' }, idMap: 'self' });
    expect(kill.errno).toBe(null);
  });
});

describe('two sandboxes', () => {
  testNeeding(['root'])('are strangers by their ids, and are not with the same', async () => {
    const first = startProbe(['status', 'sleep'], { namespaces: { pid: 'host' } });
    await first.lines.next();
    const attacks = onPid(first.process.pid as number).filter(({ name }) => ['signal', 'write to its memory', 'its environment'].includes(name));
    expect(successes(attacks, await attempt(attacks, { namespaces: { pid: 'host' } }))).toEqual([]);
    await first.process[Symbol.asyncDispose]();

    const idMap = { uids: [{ inside: 0, outside: 0x6fff0000, count: 1 }], gids: [{ inside: 0, outside: 0x6fff0000, count: 1 }] };
    const second = startProbe(['status', 'sleep'], { namespaces: { pid: 'host' }, idMap });
    await second.lines.next();
    const [kill] = await ask([['kill', second.process.pid as number, 'SIGCONT']], { namespaces: { pid: 'host' }, idMap });
    expect(kill.errno).toBe(null);
    await second.process[Symbol.asyncDispose]();
  });

  test('share no file that one of them writes, no queue, no memory', async () => {
    const names = ['/tmp/mine', '/dev/shm/mine', '/run/mine', '/etc/mine', '/dev/mqueue/mine'];
    const first = startProbe([...names.map((path) => ['create', path, 'secret'] as const), 'sleep']);
    for (const name of names)
      expect([name, parseAnswer('create', await first.lines.next()).errno]).toEqual([name, name.includes('mqueue') ? expect.anything() : null]);
    const answers = await ask(names.map((path) => ['lstat', path] as const));
    expect(answers.map(({ errno }) => errno)).toEqual(names.map(() => 'ENOENT'));
    await first.process[Symbol.asyncDispose]();
  });
});

describe('what the host has', () => {
  test('System V memory', async () => {
    const key = 0x0c10_0000 + process.pid;
    const [made] = await askHost([['syscall', 'shmget', key, 4096, 0o1666]]);
    onTestFinished(() => void execFileSync(fixture('probe'), ['syscall', 'shmctl', String(made.result), '0', '0']));
    const attacks: Attack[] = [{ name: 'shmget', question: ['syscall', 'shmget', key, 4096, 0o666], refused: ['ENOENT'], freed: null }];
    for (const { options } of insides) expect(successes(attacks, await attempt(attacks, options))).toEqual([]);
    expect((await attempt(attacks, { namespaces: { ipc: 'host' } })).get('shmget')).toBe(null);
  });

  test('abstract sockets and loopback ports', async () => {
    const name = `@cloister-neighbours-${process.pid}`;
    const unix = spawn(fixture('probe'), ['serve-unix', name, 'secret', '9'], { stdio: ['ignore', 'pipe', 'ignore'] });
    const tcp = spawn(fixture('probe'), ['serve-tcp', '127.0.0.1', '0', 'secret', '9'], { stdio: ['ignore', 'pipe', 'ignore'] });
    onTestFinished(() => {
      unix.kill();
      tcp.kill();
    });
    await new Lines(unix.stdout).next();
    const { port } = parseAnswer('serve-tcp', await new Lines(tcp.stdout).next());
    const attacks: Attack[] = [
      { name: 'abstract', question: ['connect-unix', name], refused: ['ECONNREFUSED'] },
      { name: 'tcp', question: ['connect-tcp', '127.0.0.1', port as number], refused: ['ECONNREFUSED'] },
    ];
    for (const { options } of insides) expect(successes(attacks, await attempt(attacks, options))).toEqual([]);
    expect([...(await attempt(attacks, { network: 'host' })).values()]).toEqual([null, null]);
  });

  // The default filter refuses these calls altogether; what lies behind it is a session keyring of one's own.
  test('keys of its session, and of its user', () => {
    const script = `
      import { execFileSync } from 'node:child_process';
      import { runIsolated } from 'cloister';
      const [probe] = process.argv.slice(1);
      const mounts = [{ type: 'bind', source: probe, target: '/probe', readonly: true }];
      const words = ['syscall', 'request_key', 's:user', 's:cloister-secret', '0', '0', '--', 'syscall', 'keyctl', '10', '-4', 's:user', 's:cloister-other', '0'];
      console.log(execFileSync(probe, words, { encoding: 'utf8' }) + (await runIsolated('/probe', words, { mounts, seccomp: 'unconfined' })).stdout);`;
    const words = [
      ...['syscall', 'keyctl', '1', '0', '--', 'syscall', 'add_key', 's:user', 's:cloister-secret', 's:x', '1', '-3'],
      ...['--', 'syscall', 'add_key', 's:user', 's:cloister-other', 's:x', '1', '-4'],
      ...['--', 'exec', process.execPath, '--input-type=module', '-e', script, fixture('probe')],
    ];
    const lines = execFileSync(fixture('probe'), words, { encoding: 'utf8', cwd: repository }).trim().split('\n');
    const [, , other, ...found] = lines.map((line) => JSON.parse(line) as { errno: string | null; result: number });
    execFileSync(fixture('probe'), ['syscall', 'keyctl', '9', String(other?.result), '-4']);
    expect(found.map(({ errno }) => errno)).toEqual([null, null, 'ENOKEY', 'ENOKEY']);
  });

  test('its environment', async () => {
    const script = `
      import { runIsolated } from 'cloister';
      const { stdout } = await runIsolated('sh', ['-c', 'env; cat /proc/1/environ /proc/self/environ']);
      console.log(stdout);`;
    const stdout = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
      cwd: repository,
      env: { ...process.env, CLOISTER_SECRET: 'do not tell' },
    });
    expect(stdout).toContain('PATH=');
    expect(stdout).not.toContain('do not tell');
    expect((await runIsolated('env', { env: { CLOISTER_SECRET: 'do not tell' } })).stdout).toContain('do not tell');
  });

  needing(test, ['python3'])('its terminal', () => {
    const script = `
      import { runIsolated } from 'cloister';
      const [probe] = process.argv.slice(1);
      const { stdout } = await runIsolated('/probe', ['tiocsti', '--', 'tty'], { mounts: [{ type: 'bind', source: probe, target: '/probe', readonly: true }], stdio: ['inherit', 'pipe', 'inherit'] });
      console.log(stdout);`;
    const inTerminal = (...words: string[]): string =>
      execFileSync('python3', ['-c', 'import pty, sys; pty.spawn(sys.argv[1:])', ...words], {
        encoding: 'utf8',
        cwd: repository,
        stdio: ['pipe', 'pipe', 'pipe'],
        input: '',
      });
    const answers = (text: string): { verb?: string; errno?: string | null; controlling?: string | null }[] =>
      [...text.matchAll(/\{.*\}/g)].map(([line]) => JSON.parse(line));
    const [pushed, terminal] = answers(inTerminal(process.execPath, '--input-type=module', '-e', script, fixture('probe')));
    expect([pushed?.errno, terminal?.controlling]).toEqual(['EPERM', null]);
    // Outside it can, where the kernel lets anybody do so: dev.tty.legacy_tiocsti, since 6.2.
    const [free] = answers(inTerminal(fixture('probe'), 'tiocsti'));
    expect([null, 'EIO']).toContain(free?.errno);
  });
});
