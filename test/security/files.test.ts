// Ways out of the root, around its masks, and into what the host has mounted or linked.
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, linkSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type IsolationError, type Mount, runIsolated, type SpawnOptions } from 'cloister';
import { describe, expect, onTestFinished, test } from 'vitest';
import { fixture } from '../helpers/fixtures.js';
import { testNeeding } from '../helpers/lane.js';
import { Lines } from '../helpers/lines.js';
import { ask, askHost, type Question } from '../helpers/probe.js';
import { smallRoot, temporary } from '../integration/trees.js';
import { insides } from './insides.js';

describe('out of the root', () => {
  const secret = (): string => {
    const directory = temporary({ secret: 'of the host' });
    return join(directory, 'secret');
  };

  test('by .. , by links of /proc, by a program’s root', async () => {
    const path = secret();
    const ways = [path, `/../../..${path}`, `/proc/self/root${path}`, `/proc/1/root${path}`, `/proc/self/cwd/../../..${path}`, `/proc/1/cwd/../..${path}`];
    for (const { options } of insides) {
      const answers = await ask(
        ways.map((way) => ['read', way] as const),
        options,
      );
      expect(answers.filter(({ errno }) => errno === null)).toEqual([]);
    }
    // It is there, for who is given it.
    const [shown] = await ask([['read', '/shown']], { mounts: [{ type: 'bind', source: path, target: '/shown', readonly: true }] });
    expect(shown).toMatchObject({ text: 'of the host' });
  });

  test('by chroot and a directory left behind, with the capability for it', async () => {
    const path = secret();
    const walk: Question[] = [
      ['mkdir', '/tmp/x'],
      ['chroot', '/tmp/x'],
      ...Array<Question>(40).fill(['chdir', '..']),
      ['chroot', '.'],
      ['read', path],
      ['ls', '/probe'],
    ];
    for (const user of ['new', ...(process.getuid?.() === 0 ? ['host' as const] : [])] as const) {
      const answers = await ask(walk, { capabilities: ['CAP_SYS_CHROOT'], namespaces: { user } });
      const [read, list] = answers.slice(-2);
      // It is out of its chroot, and in the sandbox still.
      expect([read?.errno, list?.errno]).toEqual(['ENOENT', null]);
    }
  });

  test('by a symlink in the place of /proc, /sys or /dev', async () => {
    for (const name of ['proc', 'sys', 'dev']) {
      const root = smallRoot({ [name]: '-> etc' });
      const error = await runIsolated('/bin/probe', ['ids'], { rootfs: root }).catch((refused: IsolationError) => refused);
      expect([name, 'errnoName' in error && error.errnoName]).toEqual([name, 'ELOOP']);
    }
  });

  test('by what is mounted inside: the host does not see it', async () => {
    const directory = temporary({ 'below/': '' });
    const mounts: Mount[] = [{ type: 'bind', source: directory, target: '/work' }];
    const [mount] = await ask([['mount', 'none', '/work/below', 'tmpfs', 0]], { mounts, capabilities: ['CAP_SYS_ADMIN'] });
    expect(mount.errno).toBe(null);
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(directory);
  });
});

describe('around a mask', () => {
  const masked = ['/proc/keys', '/proc/timer_list', '/proc/interrupts', '/proc/kcore'];
  const detours = (path: string): string[] => [
    path,
    path.replace('/proc/', '/proc/./'),
    path.replace('/proc/', '/proc/self/../'),
    path.replace('/proc/', '/proc/self/root/proc/'),
    path.replace('/proc/', '/proc/thread-self/root/proc/'),
    path.replace('/proc/', '/dev/fd/../../'),
  ];
  const types = async (options: SpawnOptions): Promise<(string | undefined)[]> => {
    const answers = await ask(
      masked.flatMap(detours).map((path) => ['stat', path] as const),
      options,
    );
    return answers.map((answer) => (answer as { type?: string }).type);
  };

  for (const { name, options } of insides) {
    test(`${name} finds /dev/null on every way`, async () => {
      expect(new Set(await types(options)).has('file')).toBe(false);
      const answers = await ask([...masked.map((path) => ['unlink', path] as const), ...masked.map((path) => ['rename', path, '/proc/x'] as const)], options);
      expect(answers.filter(({ errno }) => errno === null)).toEqual([]);
    });
  }

  test('and files where nothing is masked', async () => {
    expect(new Set(await types({ maskedPaths: [] })).has('file')).toBe(true);
  });

  test('a path that is a symlink in the root masks what it leads to inside, and nothing outside', async () => {
    const directory = temporary({ file: 'of the host' });
    const root = smallRoot({ hidden: `-> ${directory}/file`, 'etc/hidden': 'inside', alias: '-> etc/hidden' });
    const [inside] = await ask([['stat', '/etc/hidden']], { rootfs: root, maskedPaths: ['/hidden', '/alias'] });
    expect(inside).toMatchObject({ type: 'char-device', rdev: '1:3' });
    expect(readFileSync(join(directory, 'file'), 'utf8')).toBe('of the host');
  });
});

describe('a file of the host', () => {
  test('linked to cannot be changed through a read-only bind, nor linked out of a writable one', async () => {
    const directory = temporary({ 'shown/file': 'x', 'mine/': '' });
    linkSync(join(directory, 'shown/file'), join(directory, 'other'));
    const mounts: Mount[] = [
      { type: 'bind', source: join(directory, 'shown'), target: '/shown', readonly: true },
      { type: 'bind', source: join(directory, 'mine'), target: '/mine' },
    ];
    const attacks: Question[] = [
      ['link', '/shown/file', '/mine/file'],
      ['link', '/shown/file', '/shown/other'],
      ['append', '/shown/file', 'y'],
      ['chmod', '4755', '/shown/file'],
      ['chown', 1, 1, '/shown/file'],
      ['rename', '/shown/file', '/mine/file'],
      ['setxattr', '/shown/file', 'user.x', 'y'],
      ['syscall', 'truncate', 's:/shown/file', 0],
      ['unlink', '/shown/file'],
      ['link', '/etc/passwd', '/mine/passwd'],
    ];
    for (const { options } of insides) {
      const answers = await ask(attacks, { ...options, mounts });
      expect(answers.filter(({ errno }) => errno === null)).toEqual([]);
    }
    expect(readFileSync(join(directory, 'other'), 'utf8')).toBe('x');
    const [append] = await ask([['append', '/shown/file', 'y']], { mounts: mounts.map((mount) => ({ ...mount, readonly: false })) });
    expect([append.errno, readFileSync(join(directory, 'other'), 'utf8')]).toEqual([null, 'xy']);
  });

  testNeeding(['root'])('that is setuid root makes nobody root', async () => {
    const root = smallRoot();
    copyFileSync(fixture('probe'), join(root, 'bin/setuid'));
    chmodSync(join(root, 'bin/setuid'), 0o4755);
    const user = { uid: 1000, gid: 1000 };
    const euid = async (options: SpawnOptions): Promise<number> =>
      JSON.parse((await runIsolated('/bin/setuid', ['ids'], { rootfs: root, readonly: true, user, ...options })).stdout).euid;
    expect(await euid({})).toBe(1000);
    expect(await euid({ init: true })).toBe(1000);
    expect(await euid({ namespaces: { user: 'host' } })).toBe(1000);
    expect(await euid({ noNewPrivileges: false })).toBe(0);
  });

  test('is not the program of an init, and that is not to be written to', async () => {
    const questions: Question[] = [
      ['open', '/proc/1/exe', 'w'],
      ['open', '/proc/1/mem', 'rw'],
      ['ptrace', 1],
      ['write-memory', 1],
      ['read', '/proc/1/environ'],
      ['open', '/proc/1/fd/3', 'w'],
    ];
    for (const options of [{}, { user: { uid: 1000, gid: 1000 } }]) {
      const answers = await ask(questions, { ...options, init: true });
      expect(answers.filter(({ errno }) => errno === null)).toEqual([]);
    }
  });

  test('is not the program itself, to be written to from within', async () => {
    const directory = temporary();
    copyFileSync(fixture('probe'), join(directory, 'probe'));
    chmodSync(join(directory, 'probe'), 0o755);
    const before = readFileSync(join(directory, 'probe'));
    // Even where the bind is writable: who executes a file keeps it from being written to (ETXTBSY).
    const mounts: Mount[] = [{ type: 'bind', source: directory, target: '/own' }];
    const { stdout } = await runIsolated('/own/probe', ['open', '/proc/self/exe', 'w', '--', 'create', '/proc/self/exe', 'x'], { mounts });
    for (const line of stdout.trim().split('\n')) expect(['ETXTBSY', 'EEXIST', 'EACCES']).toContain(JSON.parse(line).errno);
    expect(readFileSync(join(directory, 'probe')).equals(before)).toBe(true);
  });
});

describe('a symlink that is swapped into the place of a mount target, 10,000 times and more', () => {
  /** A root whose /a changes places with a link to a directory of the host, until the test ends. */
  async function swapping(kind: 'directory' | 'file'): Promise<{ root: string; outside: string }> {
    const outside = temporary({ file: 'of the host' });
    const target = kind === 'directory' ? outside : join(outside, 'file');
    const root = smallRoot(kind === 'directory' ? { 'a/': '', link: `-> ${target}` } : { a: '', link: `-> ${target}` });
    const swapper = spawn(fixture('probe'), ['swap-names', join(root, 'a'), join(root, 'link'), '10000'], { stdio: ['ignore', 'pipe', 'ignore'] });
    onTestFinished(() => void swapper.kill('SIGKILL'));
    await new Lines(swapper.stdout).next();
    return { root, outside };
  }

  const untouched = async (outside: string): Promise<void> => {
    expect(readdirSync(outside)).toEqual(['file']);
    expect(readFileSync(join(outside, 'file'), 'utf8')).toBe('of the host');
    const [{ mounts }] = await askHost(['mounts']);
    expect(mounts.filter(({ mountPoint }) => mountPoint.startsWith(outside))).toEqual([]);
  };

  const kinds: readonly [name: string, kind: 'directory' | 'file', options: (turn: number) => SpawnOptions][] = [
    ['a tmpfs', 'directory', () => ({ mounts: [{ type: 'tmpfs', target: '/a' }] })],
    ['one below it, to be made', 'directory', (turn) => ({ mounts: [{ type: 'tmpfs', target: `/a/made${turn}` }] })],
    ['a file, to be made', 'directory', (turn) => ({ mounts: [{ type: 'file', target: `/a/made${turn}`, contents: 'x' }] })],
    ['a bind', 'directory', () => ({ mounts: [{ type: 'bind', source: '/usr', target: '/a', readonly: true }] })],
    ['proc', 'directory', () => ({ mounts: [{ type: 'proc', target: '/a' }] })],
    ['a mask', 'directory', () => ({ maskedPaths: ['/a'] })],
    ['a mask of a file', 'file', () => ({ maskedPaths: ['/a'] })],
    ['a read-only path', 'directory', () => ({ readonlyPaths: ['/a'] })],
    ['the working directory', 'directory', () => ({ cwd: '/a' })],
    ['a path of Landlock', 'directory', () => ({ landlock: { read: ['/a', '/bin'] } })],
  ];
  test.each(kinds)('%s', async (_, kind, options) => {
    const { root, outside } = await swapping(kind);
    const seen = new Set<string>();
    for (let i = 0; i < 25; i++) {
      const outcome = await runIsolated('/bin/probe', ['read', `${outside}/file`, '--', 'read', '/a/file', '--', 'read', '/proc/self/cwd/file'], {
        rootfs: root,
        // Whoever led the maker out could write there, too: no id of its own stands in the way.
        idMap: 'self',
        ...options(i),
      }).then(
        ({ stdout }) => stdout,
        ({ message }: IsolationError) => message,
      );
      seen.add(outcome);
      expect(outcome).not.toContain('of the host');
    }
    await untouched(outside);
    expect(seen.size).toBeGreaterThan(0);
  });

  test('and who looks up by name is led out: the swap does what it is for', async () => {
    const { root, outside } = await swapping('directory');
    const script = 'i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); : 2>/dev/null >"$1/a/led-out"; [ -e "$2/led-out" ] && exit 0; done; exit 1';
    expect(spawnSync('sh', ['-c', script, 'sh', root, outside]).status).toBe(0);
  });
});

test('a name in the root that is a socket, a pipe or a device is no place to mount over, and nobody waits for it', async () => {
  const root = smallRoot();
  mkdirSync(join(root, 'd'));
  spawnSync('mkfifo', [join(root, 'd/pipe')]);
  symlinkSync('d/pipe', join(root, 'link'));
  writeFileSync(join(root, 'd/file'), 'x');
  const { exitCode } = await runIsolated('/bin/probe', ['ids'], { rootfs: root, maskedPaths: ['/d/pipe', '/link'], readonlyPaths: ['/d/pipe'] });
  expect(exitCode).toBe(0);
});
