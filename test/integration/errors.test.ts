// What a person reads when something is refused: for real, where it can be had here. Causes that this machine doesn't have are in
// test/unit/hints.test.ts.
import { execFileSync } from 'node:child_process';
import { type IsolationError, runIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { fixture, repository } from '../helpers/fixtures.js';
import { testNeeding } from '../helpers/lane.js';
import { insideFixture, withFixtures } from '../helpers/probe.js';
import { refusal, saying } from './refusals.js';
import { temporary } from './trees.js';

const execute = (command: string, options = {}) => saying(runIsolated(command, [], withFixtures(options)));

describe('a program that is not executed', () => {
  test('no such name in PATH', async () => {
    expect(await execute('no-such-program', { env: { PATH: '/usr/bin:/bin' } })).toMatchInlineSnapshot(`
      "ENOENT: execute the program no-such-program (execve): there is no program 'no-such-program' in the root's PATH
        Looked for, inside: /usr/bin/no-such-program, /bin/no-such-program."
    `);
    const error = await refusal(runIsolated('no-such-program'));
    expect(error).toMatchObject({ code: 'ERR_CLOISTER_NO_PROGRAM', errno: -2, errnoName: 'ENOENT', syscall: 'execve', step: 'execute the program' });
  });

  test('no such path', async () => {
    expect(await execute('/no/such/program')).toMatchInlineSnapshot(`
      "ENOENT: execute the program /no/such/program (execve): there is no /no/such/program in the root
        The path is looked up inside the sandbox, not on the host. \`mounts\` can bring it in."
    `);
  });

  test('a script whose interpreter is missing', async () => {
    expect(await execute(insideFixture('script-bad-interpreter'))).toMatchInlineSnapshot(`
      "ENOENT: execute the program /probe/script-bad-interpreter (execve): /probe/script-bad-interpreter exists inside, but the interpreter of its first line, /no/such/interpreter, does not
        Put /no/such/interpreter into the root, or change the first line of /probe/script-bad-interpreter."
    `);
    expect(await refusal(runIsolated(insideFixture('script-bad-interpreter'), [], withFixtures({})))).toMatchObject({ code: 'ERR_CLOISTER_EXEC' });
  });

  test('a script with a carriage return', async () => {
    const mounts = [{ type: 'file', target: '/script', contents: '#!/bin/sh\r\necho\r\n', mode: 0o755 }] as const;
    expect(JSON.stringify(await saying(runIsolated('/script', { mounts })))).toMatchInlineSnapshot(
      `""ENOENT: execute the program /script (execve): /script exists inside, but the interpreter of its first line, /bin/sh\\r, does not\\n  Put /bin/sh\\r into the root, or change the first line of /script (it ends with a carriage return).""`,
    );
  });

  test('a dynamic loader that is missing', async () => {
    expect(await execute(insideFixture('elf-bad-interpreter'))).toMatchInlineSnapshot(`
      "ENOENT: execute the program /probe/elf-bad-interpreter (execve): /probe/elf-bad-interpreter exists inside, but the dynamic loader that it was linked for, /no/such/ld.so, does not
        Put /no/such/ld.so and the libraries into the root, or use a statically linked program."
    `);
  });

  test('another architecture', async () => {
    const text = await execute(insideFixture('elf-other-arch'));
    const [other, own] = process.arch === 'arm64' ? ['x86_64', 'aarch64'] : ['aarch64', 'x86_64'];
    expect(text.replace(other, 'OTHER').replace(own, 'OWN')).toMatchInlineSnapshot(`
      "ENOEXEC: execute the program /probe/elf-other-arch (execve): /probe/elf-other-arch is a program for OTHER, and this machine is OWN
        Use a build for this architecture."
    `);
  });

  test('a text without #!', async () => {
    expect(await execute(insideFixture('text-executable'))).toMatchInlineSnapshot(`
      "ENOEXEC: execute the program /probe/text-executable (execve): /probe/text-executable is a text without a first line '#!'
        Begin it with '#!/bin/sh', or run it by its interpreter: ('sh', [path])."
    `);
  });

  test('an empty file', async () => {
    expect(await execute(insideFixture('empty-executable'))).toMatchInlineSnapshot(
      `"ENOEXEC: execute the program /probe/empty-executable (execve): /probe/empty-executable is empty"`,
    );
  });

  test('a file that may not be executed', async () => {
    expect(await execute(insideFixture('not-executable'))).toMatchInlineSnapshot(`
      "EACCES: execute the program /probe/not-executable (execve): /probe/not-executable exists inside, but may not be executed
        It, or /bin/sh, which its first line names, lacks the x permission for this user, is a directory, lies below one that may not be searched, or on a mount that is noexec."
    `);
  });

  test('a directory', async () => {
    expect(await execute('/usr/bin')).toMatchInlineSnapshot(`
      "EACCES: execute the program /usr/bin (execve): /usr/bin exists inside, but may not be executed
        It lacks the x permission for this user, is a directory, lies below one that may not be searched, or on a mount that is noexec."
    `);
  });

  test('below a file', async () => {
    expect(await execute('/etc/passwd/program')).toMatchInlineSnapshot(`"ENOTDIR: execute the program /etc/passwd/program (execve): not a directory"`);
  });

  test('arguments without end', async () => {
    expect(await saying(runIsolated('true', ['x'.repeat(200_000)]))).toMatchInlineSnapshot(`
      "E2BIG: execute the program /usr/bin/true (execve): arguments and environment are larger than the kernel takes
        execve(2): together at most a quarter of the stack limit, each at most 128 KiB."
    `);
  });

  test('the same, with init', async () => {
    const own = await Promise.all(
      ['no-such-program', insideFixture('script-bad-interpreter'), insideFixture('empty-executable')].map((name) => execute(name, { init: true })),
    );
    const plain = await Promise.all(
      ['no-such-program', insideFixture('script-bad-interpreter'), insideFixture('empty-executable')].map((name) => execute(name)),
    );
    expect(own).toEqual(plain);
  });
});

/** The message of a spawn, in a Node that was started by this shell command. */
function inShell(prepare: string, wrap = ''): string {
  const script = `
    import { runIsolated } from 'cloister';
    await runIsolated('true').then(
      ({ exitCode }) => console.log('ended with', exitCode),
      (error) => console.log([error.code, error.message, ...(error.evidence ?? []).map((line) => '- ' + line)].join('\\n')),
    );`;
  const command = `${prepare}\n exec ${wrap} "$0" --input-type=module -e "$1"`;
  // An ordinary user of a nested user namespace: root by name, but without capabilities.
  const text = execFileSync('unshare', ['--user', '--map-root-user', '--mount', '--propagation', 'private', 'sh', '-ec', command, process.execPath, script], {
    encoding: 'utf8',
    cwd: repository,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  // This machine may be one itself.
  return text.replace(/ \(a (Docker|Podman) container\)/, '').replace(/CapEff [0-9a-f]+/, 'CapEff SET');
}
const powerless = 'setpriv --bounding-set=-all,+setfcap --inh-caps=-all';

const nested = testNeeding(['user-namespaces', 'program:unshare', 'program:setpriv']);

describe('a host that refuses', () => {
  nested('nothing, to begin with', () => {
    expect(inShell('', powerless)).toBe('ended with 0\n');
  });

  nested('a root without capabilities', () => {
    expect(inShell('', 'setpriv --bounding-set=-all --inh-caps=-all')).toMatchInlineSnapshot(`
      "ERR_CLOISTER_ID_MAP
      EPERM: write uid_map /proc/self/uid_map (write): root without CAP_SETFCAP may not map itself into a user namespace
        Run as another user, or keep that capability (docker run --cap-add=SETFCAP).
      - /proc/self/status has uid 0 and CapEff SET
      "
    `);
  });

  nested('user namespaces: user.max_user_namespaces is 0', () => {
    expect(inShell('echo 0 > /proc/sys/user/max_user_namespaces', powerless)).toMatchInlineSnapshot(`
      "ERR_CLOISTER_NAMESPACE
      ENOSPC: make the namespaces (clone3): user.max_user_namespaces is 0
        sysctl -w user.max_user_namespaces=10000 (as root) allows them.
      - /proc/sys/user/max_user_namespaces is 0
      "
    `);
  });

  nested('another kind: user.max_net_namespaces is 0', () => {
    expect(inShell('echo 0 > /proc/sys/user/max_net_namespaces', powerless)).toMatchInlineSnapshot(`
      "ERR_CLOISTER_NAMESPACE
      ENOSPC: make the namespaces (clone3): user.max_net_namespaces is 0
        sysctl -w user.max_net_namespaces=10000 (as root) allows them.
      - /proc/sys/user/max_net_namespaces is 0
      "
    `);
  });

  nested('clone3, by an outer filter', () => {
    expect(inShell('', `${powerless} ${fixture('probe')} seccomp-deny userns EPERM --`)).toMatchInlineSnapshot(`
      "ERR_CLOISTER_NAMESPACE
      EPERM: make the namespaces (clone3): a system call filter around this process refuses clone3
        Run the container with a seccomp profile that allows clone3, unshare, setns and the mount calls (docker run --security-opt seccomp=unconfined, and systempaths=unconfined for /proc).
      - /proc/self/status has Seccomp: 2: a filter was put on this process from outside
      "
    `);
  });

  nested('mounts, by an outer filter', () => {
    expect(inShell('', `${powerless} ${fixture('probe')} seccomp-deny fsopen,mount EPERM --`)).toMatchInlineSnapshot(`
      "ERR_CLOISTER_MOUNT
      EPERM: make the writable layer tmpfs (fsopen): a system call filter around this process refuses fsopen
        Run the container with a seccomp profile that allows clone3, unshare, setns and the mount calls (docker run --security-opt seccomp=unconfined, and systempaths=unconfined for /proc).
      - /proc/self/status has Seccomp: 2: a filter was put on this process from outside
      "
    `);
  });

  nested('a new /proc, as the present one is covered', () => {
    expect(inShell('mount --bind /dev/null /proc/cpuinfo', powerless)).toMatchInlineSnapshot(`
      "ERR_CLOISTER_MOUNT
      EPERM: mount /proc (fsmount): a new /proc would show what is covered in the present one
        Something is mounted over parts of /proc, as container engines do: run this container with unmasked paths (docker run --security-opt systempaths=unconfined; podman --security-opt unmask=ALL).
      - /proc/cpuinfo is mounted over
      "
    `);
  });

  nested('a user namespace in a chroot', () => {
    const root = temporary();
    const prepare = `
      cd ${root}
      for directory in /*; do
        [ -d "$directory" ] && [ ! -h "$directory" ] || { [ -h "$directory" ] && cp -P "$directory" .; continue; }
        mkdir ".$directory"
        mount --rbind "$directory" ".$directory"
      done
      cd ${repository}`;
    const script = inShell(prepare, `/usr/sbin/chroot ${root} ${powerless} env -C ${repository}`);
    expect(script).toMatchInlineSnapshot(`
      "ERR_CLOISTER_ROOTFS
      this process lives in a chroot, where the kernel makes no user namespace
        Enter the directory by pivot_root instead of chroot, or run outside of it.
      - /proc/self/mountinfo has no mount at /
      "
    `);
  });
});

describe('the error itself', () => {
  test('is an Error, with a code and a name', async () => {
    const error = await refusal(runIsolated('/no/such/program'));
    expect(error).toBeInstanceOf(Error);
    expect([error.name, error.code, String(error).split('\n')[0]]).toMatchInlineSnapshot(`
      [
        "IsolationError",
        "ERR_CLOISTER_NO_PROGRAM",
        "IsolationError: ENOENT: execute the program /no/such/program (execve): there is no /no/such/program in the root",
      ]
    `);
    expect(Object.keys(error).sort()).toEqual(['code', 'errno', 'errnoName', 'hint', 'index', 'name', 'path', 'step', 'syscall']);
  });

  test('says the index that explain() gives the step', async () => {
    const { explain } = await import('cloister');
    const mounts = [{ type: 'bind', source: '/no/such/source', target: '/data' }] as const;
    const error = await refusal(runIsolated('true', { mounts }));
    const { steps } = await explain('true', [], { mounts }).catch((reason: IsolationError) => {
      throw reason;
    });
    const told = steps.filter(({ step }) => step === error.step || step === `${error.step} ${error.path}`);
    expect(told.map(({ syscall }) => syscall)).toContain(error.syscall);
  });

  test('a wrong option is a TypeError, with a code and the name of the option', async () => {
    await expect(runIsolated('true', { umask: -1 })).rejects.toMatchObject({ name: 'TypeError', code: 'ERR_CLOISTER_OPTION', option: 'umask' });
  });
});
