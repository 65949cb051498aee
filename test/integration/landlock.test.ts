// Landlock from the inside: each restriction beside the same attempt without it.
import { spawn } from 'node:child_process';
import { explain, runIsolated, type SpawnOptions } from 'cloister';
import { expect, onTestFinished, test } from 'vitest';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { Lines } from '../helpers/lines.js';
import { ask, fixture, type Question } from '../helpers/probe.js';
import { saying } from './refusals.js';
import { smallRoot } from './trees.js';

type Landlock = NonNullable<SpawnOptions['landlock']>;

/** The errnos of these questions, without and with the rules. */
async function both(
  questions: readonly Question[],
  landlock: Landlock,
  options: SpawnOptions = {},
): Promise<[string | null | undefined, string | null | undefined][]> {
  const [free, bound] = [await ask(questions, options), await ask(questions, { ...options, landlock })];
  return free.map(({ errno }, index) => [errno, bound[index]?.errno]);
}

const tree = { 'in/file': 'inside', 'out/file': 'outside', 'in/sub/': '', 'out/sub/': '' };

describeNeeding(['landlock:2'])('paths', () => {
  test('read: files and directories, below what is named', async () => {
    const questions: Question[] = [
      ['read', '/in/file'],
      ['ls', '/in/sub'],
      ['read', '/out/file'],
      ['ls', '/out'],
      ['stat', '/out/file'],
      ['create', '/out/new', 'x'],
    ];
    expect(await both(questions, { read: ['/in', '/probe'] }, { rootfs: smallRoot(tree) })).toEqual([
      ...[
        [null, null],
        [null, null],
        [null, 'EACCES'],
        [null, 'EACCES'],
      ],
      // Neither metadata nor writing is reading.
      ...[
        [null, null],
        [null, null],
      ],
    ]);
  });

  test('write: every way to change what is there', async () => {
    const ways = (dir: string): Question[] => [
      ['create', `/${dir}/new`, 'x'],
      ['append', `/${dir}/file`, 'x'],
      ['mkdir', `/${dir}/d`],
      ['rmdir', `/${dir}/sub`],
      ['symlink', 'a', `/${dir}/s`],
      ['link', `/${dir}/file`, `/${dir}/l`],
      ['rename', `/${dir}/file`, `/${dir}/sub2`],
      ['unlink', `/${dir}/new`],
      ['rename', `/${dir}/sub2`, `/${dir}/d/file`],
    ];
    const root = { rootfs: smallRoot(tree), landlock: { write: ['/in'] } };
    const [inside, outside] = [await ask(ways('in'), root), await ask(ways('out'), root)];
    expect(inside.map(({ errno }) => errno)).toEqual(Array(9).fill(null));
    expect(outside.map(({ errno }) => errno)).toEqual([...Array(7).fill('EACCES'), 'ENOENT', 'ENOENT']);
    expect(
      (
        await ask(
          [
            ['read', '/out/file'],
            ['ls', '/out'],
          ],
          { rootfs: root.rootfs },
        )
      ).map((answer) => ('text' in answer ? answer.text : 'entries' in answer && answer.entries)),
    ).toEqual(['outside', ['file', 'sub']]);
  });

  testNeeding(['landlock:3'])('truncating by name is writing', async () => {
    const questions: Question[] = [['syscall', 'truncate', 's:/out/file', 0]];
    expect(await both(questions, { write: ['/in'] }, { rootfs: smallRoot(tree) })).toEqual([[null, 'EACCES']]);
  });

  test('a file alone', async () => {
    const questions: Question[] = [
      ['append', '/in/file', 'x'],
      ['create', '/in/new', 'x'],
    ];
    expect(await both(questions, { write: ['/in/file'] }, { rootfs: smallRoot(tree) })).toEqual([
      [null, null],
      [null, 'EACCES'],
    ]);
  });

  test('execute: what is named, its loader, and nothing else', async () => {
    const root = smallRoot(tree);
    const questions: Question[] = [['exec', '/in/file']];
    expect((await ask(questions, { rootfs: root, landlock: { execute: ['/bin', '/probe'] } })).length).toBe(0);
    const { exitCode } = await runIsolated('/bin/probe', ['ids'], { rootfs: root, landlock: { execute: ['/bin/probe'], read: [] } });
    expect(exitCode).toBe(0);
    expect(await saying(runIsolated('/bin/probe', ['ids'], { rootfs: root, landlock: { execute: ['/in'] } }))).toMatchInlineSnapshot(`
      "EACCES: execute the program /bin/probe (execve): /bin/probe exists inside, but may not be executed
        With \`landlock\`, /bin/probe, and its interpreter or dynamic loader if it has one, must be below paths of \`execute\`, if that is given. Else it lacks the x permission for this user, or is on a mount that is noexec."
    `);
    expect(await saying(runIsolated('/bin/probe', ['ids'], { rootfs: root, landlock: { execute: ['/in'] }, init: true }))).toMatchInlineSnapshot(`
      "EACCES: execute the program /bin/probe (execve): /bin/probe exists inside, but may not be executed
        With \`landlock\`, /bin/probe, and its interpreter or dynamic loader if it has one, must be below paths of \`execute\`, if that is given. Else it lacks the x permission for this user, or is on a mount that is noexec."
    `);
    expect(await saying(runIsolated('sh', ['-c', ':'], { landlock: { execute: ['/bin/sh'] } }))).toMatchInlineSnapshot(`
      "EACCES: execute the program /bin/sh (execve): /bin/sh exists inside, but may not be executed
        With \`landlock\`, /bin/sh, and /lib64/ld-linux-x86-64.so.2, must be below paths of \`execute\`, if that is given. Else it lacks the x permission for this user, or is on a mount that is noexec."
    `);
  });

  test('moving between directories stays possible where writing is not restricted', async () => {
    const questions: Question[] = [['rename', '/in/file', '/out/moved']];
    expect(await both(questions, { execute: ['/'] }, { rootfs: smallRoot(tree) })).toEqual([[null, 'ENOENT']]);
    expect((await ask(questions, { rootfs: smallRoot(tree), landlock: { execute: ['/'] } }))[0]?.errno).toBe(null);
  });

  test('nothing can be mounted any more, not even with the capability', async () => {
    const questions: Question[] = [['mount', 'none', '/in', 'tmpfs', 0]];
    expect(await both(questions, { read: ['/'] }, { rootfs: smallRoot(tree), capabilities: ['CAP_SYS_ADMIN'] })).toEqual([[null, 'EPERM']]);
  });

  test('what it starts is restricted as well', async () => {
    const script = 'sh -c "cat /etc/passwd"; (cat /etc/passwd) & wait $!; exec cat /etc/passwd';
    const { stdout } = await runIsolated('sh', ['-c', script], { landlock: { read: ['/usr', '/bin', '/lib'] } });
    expect(stdout).toBe('');
  });

  test('with init, without no_new_privs, as another user: the same', async () => {
    const rootfs = smallRoot(tree);
    const variants: SpawnOptions[] = [{ init: true }, { noNewPrivileges: false }, ...(process.getuid?.() === 0 ? [{ user: { uid: 7, gid: 7 } }] : [])];
    for (const options of variants) {
      const [read] = await ask([['read', '/out/file']], { rootfs, ...options, landlock: { read: ['/in', '/probe'] } });
      expect([options, read.errno]).toEqual([options, 'EACCES']);
    }
  });

  test('what is not there, and what is not a place', async () => {
    const rootfs = smallRoot(tree);
    const refused = (path: string): Promise<string> => saying(runIsolated('/bin/probe', ['ids'], { rootfs, landlock: { read: [path] } }));
    expect([await refused('/none'), await refused('/in/file/x'), await refused('/proc/self/fd/0')]).toMatchInlineSnapshot(`
      [
        "ENOENT: allow by Landlock /none (openat2): there is no /none inside
        Paths of \`landlock\` are paths inside the sandbox; \`mounts\` can bring one in.",
        "ENOTDIR: allow by Landlock /in/file/x (openat2): the way to /in/file/x inside goes through a file",
        "ELOOP: allow by Landlock /proc/self/fd/0 (openat2): the way to /proc/self/fd/0 inside goes through a link of /proc, or through symlinks without end",
      ]
    `);
  });

  test('no descriptor of the making is left inside', async () => {
    const [{ fds }] = await ask(['fds'], { landlock: { write: ['/tmp'], read: ['/'] } });
    expect(fds.map(({ fd }) => fd)).toEqual([0, 1, 2]);
  });

  test('the receipt, and the plan', async () => {
    const { isolation } = await runIsolated('true', { landlock: { write: [] } });
    const { abi, missing } = isolation.landlock as Exclude<typeof isolation.landlock, false>;
    expect(missing).toEqual([...(abi < 3 ? ['truncate'] : []), ...(abi < 5 ? ['ioctl-dev'] : [])]);
    expect((await runIsolated('true')).isolation.landlock).toBe(false);
    const { steps } = await explain('true', [], { landlock: { read: ['/usr'] } });
    const made = steps.filter(({ step }) => step.includes('Landlock'));
    expect(made.map(({ step, syscall, args }) => `${step}: ${syscall}(${args.join(', ')})`)).toMatchInlineSnapshot(`
      [
        "make a Landlock ruleset: landlock_create_ruleset({fs=read-file|read-dir|refer, net=0, scoped=0}, 0)",
        "allow by Landlock /usr: openat2(AT_FDCWD, "/usr", {flags=O_DIRECTORY|O_CLOEXEC|O_PATH, resolve=RESOLVE_NO_MAGICLINKS})",
        "allow by Landlock /usr: landlock_add_rule(<Landlock ruleset>, <path of a rule>, read-file|read-dir)",
        "allow by Landlock /usr: close(<path of a rule>)",
        "allow by Landlock /usr: openat2(AT_FDCWD, "/usr", {flags=O_CLOEXEC|O_PATH, resolve=RESOLVE_NO_MAGICLINKS})",
        "allow by Landlock /usr: landlock_add_rule(<Landlock ruleset>, <path of a rule>, read-file)",
        "allow by Landlock /usr: close(<path of a rule>)",
        "allow by Landlock /: openat2(AT_FDCWD, "/", {flags=O_DIRECTORY|O_CLOEXEC|O_PATH, resolve=RESOLVE_NO_MAGICLINKS})",
        "allow by Landlock /: landlock_add_rule(<Landlock ruleset>, <path of a rule>, refer)",
        "allow by Landlock /: close(<path of a rule>)",
        "restrict by Landlock: landlock_restrict_self(<Landlock ruleset>, 0)",
        "restrict by Landlock: close(<Landlock ruleset>)",
      ]
    `);
  });
});

describeNeeding(['landlock:4'])('ports', () => {
  test('bind and connect', async () => {
    const questions: Question[] = [
      ['bind-tcp', '127.0.0.1', 7001],
      ['bind-tcp', '127.0.0.1', 7002],
      // Nobody listens: that is what one may find out.
      ['connect-tcp', '127.0.0.1', 7003],
      ['connect-tcp', '127.0.0.1', 7004],
      ['connect-tcp', '::1', 7004],
    ];
    expect(await both(questions, { bindTcp: [7001], connectTcp: [7003] })).toEqual([
      [null, null],
      [null, 'EACCES'],
      ['ECONNREFUSED', 'ECONNREFUSED'],
      ['ECONNREFUSED', 'EACCES'],
      ['ECONNREFUSED', 'EACCES'],
    ]);
  });

  test('the one does not restrict the other', async () => {
    const questions: Question[] = [
      ['bind-tcp', '127.0.0.1', 7001],
      ['connect-tcp', '127.0.0.1', 7003],
    ];
    expect((await ask(questions, { landlock: { bindTcp: [] } })).map(({ errno }) => errno)).toEqual(['EACCES', 'ECONNREFUSED']);
    expect((await ask(questions, { landlock: { connectTcp: [] } })).map(({ errno }) => errno)).toEqual([null, 'EACCES']);
  });
});

describeNeeding(['landlock:6'])('scopes, where the namespaces are those of the host', () => {
  test('abstract sockets', async () => {
    const name = `cloister-test-${process.pid}`;
    const server = spawn(fixture('probe'), ['serve-unix', `@${name}`, 'hello', '2'], { stdio: ['ignore', 'pipe', 'ignore'] });
    onTestFinished(() => void server.kill());
    await new Lines(server.stdout).until(/serve-unix/);
    const questions: Question[] = [['connect-unix', `@${name}`]];
    expect(await both(questions, { scope: ['abstract-unix-socket'] }, { network: 'host' })).toEqual([[null, 'EPERM']]);
  });

  test('signals', async () => {
    const target = spawn('sleep', ['60'], { stdio: 'ignore' });
    onTestFinished(() => void target.kill());
    const questions: Question[] = [['kill', target.pid as number, 'SIGCONT']];
    const options: SpawnOptions = { namespaces: { pid: 'host' }, idMap: 'self' };
    expect(await both(questions, { scope: ['signal'] }, options)).toEqual([[null, 'EPERM']]);
    // Another restriction alone does not.
    expect(await both(questions, { write: [] }, options)).toEqual([[null, null]]);
  });
});

testNeeding(['root', 'landlock:1'])('who may gain privileges and has no CAP_SYS_ADMIN cannot be restricted', async () => {
  // Host root keeps what it has until the program starts; so it is the caller that must lack it.
  const { exitCode } = await runIsolated('true', { landlock: { read: ['/'] }, namespaces: { user: 'host' }, noNewPrivileges: false });
  expect(exitCode).toBe(0);
});
