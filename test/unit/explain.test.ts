// What a default spawn does, in order: a change of the plan is a change of this file.
import { explain } from 'cloister';
import { describe, expect, test } from 'vitest';
import { testNeeding } from '../helpers/lane.js';
import { smallRoot } from '../integration/trees.js';

/** The order of what is done, without what depends on the machine. */
function outline(steps: Awaited<ReturnType<typeof explain>>['steps']): string[] {
  const lines = steps.map(({ side, step }) => `${side}: ${step.replace(/\/tmp\/cloister-test-\w+/g, 'DIR')}`);
  return lines.filter((line, index) => line !== lines[index - 1]);
}

describe('explain', () => {
  testNeeding(['root'])('a directory as root, by root', async () => {
    const { steps } = await explain('/bin/probe', ['ids'], { rootfs: smallRoot(), maskedPaths: ['/proc/kcore'], readonlyPaths: ['/proc/sys'] });
    expect(outline(steps)).toMatchInlineSnapshot(`
      [
        "parent: use a directory as root DIR",
        "parent: copy what all roots share /dev",
        "parent: make the namespaces",
        "parent: write uid_map",
        "parent: write gid_map",
        "child: reset ignored signals",
        "child: die with the parent",
        "child: wait for the id maps",
        "child: become root inside",
        "child: die with the parent",
        "child: cut off mount propagation /",
        "child: mount the root /",
        "child: mount /proc",
        "child: mount /sys",
        "child: mount /dev",
        "child: mount /dev/pts",
        "child: mount /dev/shm",
        "child: mount /dev/mqueue",
        "child: mask /proc/kcore",
        "child: make read-only /proc/sys",
        "child: bring up the loopback device",
        "child: set the host name",
        "child: leave the old root /",
        "child: connect the streams",
        "child: begin a session",
        "child: close all other descriptors",
        "child: enter the working directory /",
        "child: set the umask",
        "child: leave the session keyring of the host",
        "child: drop capabilities",
        "child: set no_new_privs",
        "child: unblock signals",
        "child: filter system calls",
        "child: execute the program /bin/probe",
      ]
    `);
  });

  testNeeding(['unprivileged'])('a directory as root, by an ordinary user', async () => {
    const { steps } = await explain('/bin/probe', ['ids'], { rootfs: smallRoot(), maskedPaths: ['/proc/kcore'], readonlyPaths: ['/proc/sys'] });
    expect(outline(steps)).toMatchInlineSnapshot(`
      [
        "parent: make the namespaces",
        "child: reset ignored signals",
        "child: die with the parent",
        "child: write setgroups /proc/self/setgroups",
        "child: write uid_map /proc/self/uid_map",
        "child: write gid_map /proc/self/gid_map",
        "child: become root inside",
        "child: die with the parent",
        "child: cut off mount propagation /",
        "child: use a directory as root DIR",
        "child: mount the root /",
        "child: mount /proc",
        "child: mount /sys",
        "child: mount /dev",
        "child: bind a device /dev/null",
        "child: bind a device /dev/zero",
        "child: bind a device /dev/full",
        "child: bind a device /dev/random",
        "child: bind a device /dev/urandom",
        "child: bind a device /dev/tty",
        "child: mount /dev/pts",
        "child: mount /dev/shm",
        "child: mount /dev/mqueue",
        "child: make an empty directory for masks",
        "child: mask /proc/kcore",
        "child: make read-only /proc/sys",
        "child: bring up the loopback device",
        "child: set the host name",
        "child: leave the old root /",
        "child: connect the streams",
        "child: begin a session",
        "child: close all other descriptors",
        "child: enter the working directory /",
        "child: set the umask",
        "child: leave the session keyring of the host",
        "child: drop capabilities",
        "child: set no_new_privs",
        "child: unblock signals",
        "child: filter system calls",
        "child: execute the program /bin/probe",
      ]
    `);
  });

  test('prints each step with its index, and nothing of a secret', async () => {
    const explanation = await explain('/bin/probe', ['a b', '"'], { rootfs: smallRoot(), env: { TOKEN: 'hunter2' } });
    const text = String(explanation);
    expect(explanation.steps.map(({ index }) => index)).toEqual(explanation.steps.map((_, index) => index));
    const last = text
      .split('\n')
      .at(-1)
      ?.replace(/^\s*\d+/, 'N');
    expect(last).toMatchInlineSnapshot(`"N  execve(["/bin/probe"], ["/bin/probe", "a b", "\\""], [PATH, HOME, TERM, LANG, TOKEN])"`);
    expect(text).not.toContain('hunter2');
  });

  test('of the default root', async () => {
    const { steps } = await explain('true');
    const calls = new Set(steps.map(({ syscall }) => syscall));
    expect([...calls].sort()).toEqual(
      expect.arrayContaining(['clone3', 'execve', 'fsopen', 'fsmount', 'move_mount', 'pivot_root', 'umount2', 'capset', 'prctl', 'close_range', 'setsid']),
    );
    const order = ['clone3', 'pivot_root', 'umount2', 'capset', 'execve'].map((call) => steps.findIndex(({ syscall }) => syscall === call));
    expect(order).toEqual([...order].sort((a, b) => a - b));
    expect(steps.at(-1)).toMatchObject({ side: 'child', syscall: 'execve' });
  });

  test('the namespaces are in clone3, by name', async () => {
    const { steps } = await explain('true', [], { namespaces: { net: 'host', ipc: 'host' }, timeOffsets: { monotonic: 1 } });
    const flags = steps.find(({ syscall, step }) => syscall === 'clone3' && step === 'make the namespaces')?.args[0]?.split('|') ?? [];
    expect(flags.filter((flag) => flag.startsWith('CLONE_NEW')).sort()).toEqual([
      'CLONE_NEWCGROUP',
      'CLONE_NEWNS',
      'CLONE_NEWPID',
      'CLONE_NEWTIME',
      'CLONE_NEWUSER',
      'CLONE_NEWUTS',
    ]);
  });

  test('rejects as spawnIsolated throws', async () => {
    await expect(explain('true', [], { umask: -1 })).rejects.toThrow(TypeError);
    await expect(explain('')).rejects.toThrow(TypeError);
  });
});
