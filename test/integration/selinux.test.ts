// Contexts of SELinux: of the program, of what is mounted for it.
import { explain, runIsolated, spawnIsolated } from 'cloister';
import { describe, expect, test, vi } from 'vitest';
import { inChild } from '../helpers/harness.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';

const box = 'cloister_u:cloister_r:box_t:s0:c0';
const files = 'cloister_u:cloister_r:box_file_t:s0:c0,c1';
const told = async (promise: Promise<unknown>): Promise<string> => {
  const error = await promise.then(
    () => undefined,
    (failure: Error & { code: string }) => failure,
  );
  return `${error?.code}: ${error?.message}`;
};

describe('what the option takes', () => {
  test.each([
    { selinux: box },
    { selinux: { type: 'box_t' } },
    { selinux: { process: 'box_t' } },
    { selinux: { mount: '"a:b:c' } },
    { selinux: { process: box }, namespaces: { pid: 'host' } },
    { selinux: { process: box }, landlock: {} },
    { selinux: { mount: files }, namespaces: { mount: 'host' } },
    { selinux: { mount: files }, rootfs: '/' },
  ])('not %j', (options) => {
    let message = '';
    try {
      spawnIsolated('true', options as never);
    } catch (error) {
      message = (error as Error).message;
    }
    expect(message).toMatchSnapshot();
  });
});

testNeeding(['no-selinux'])('a label that is asked for is refused where SELinux is off, and the receipt is that there is none', async () => {
  expect(await told(runIsolated('true', { selinux: { process: box } }))).toMatchInlineSnapshot(`
    "ERR_CLOISTER_LABEL: SELinux is off on this host, so nothing can be labelled cloister_u:cloister_r:box_t:s0:c0
      Leave selinux out, or boot a kernel that has it with lsm=…,selinux among its parameters, and a policy."
  `);
  const { isolation } = await runIsolated('true');
  expect(isolation.selinux).toBe(false);
});

describeNeeding(['selinux'])('with SELinux', () => {
  const selinux = { process: box, mount: files };
  const current = "cat /proc/self/attr/current | tr '\\0' '\\n'";

  test('the program has the label, and so has what it starts; its init keeps ours', async () => {
    const { stdout, isolation } = await runIsolated('sh', ['-c', `${current}; cat /proc/1/attr/current | tr '\\0' '\\n'`], { selinux: { process: box } });
    expect(stdout).toBe(`${box}\ncloister_u:cloister_r:base_t:s0\n`);
    expect(isolation.selinux).toBe(box);
    const free = await runIsolated('sh', ['-c', current]);
    expect(free).toMatchObject({ stdout: 'cloister_u:cloister_r:base_t:s0\n', isolation: { selinux: 'cloister_u:cloister_r:base_t:s0' } });
  });

  test('what is mounted for it has the other: the root, /dev/shm, a tmpfs, a file', async () => {
    const names = ['/', '/etc/passwd', '/dev/shm', '/space', '/note'];
    const script = `import os\nfor name in ${JSON.stringify(names)}: print(name, os.getxattr(name, 'security.selinux').decode().rstrip('\\0'))`;
    const mounts = [
      { type: 'tmpfs', target: '/space' },
      { type: 'file', target: '/note', contents: 'text' },
    ] as const;
    const { stdout, stderr } = await runIsolated('python3', ['-c', script], { selinux, mounts });
    expect({ stdout, stderr }).toEqual({ stdout: names.map((name) => `${name} ${files}\n`).join(''), stderr: '' });
  });

  test('it may write to what has the label that the policy lets it, and to nothing else', async () => {
    const script = 'echo x > /space/file && echo written';
    const mounts = [{ type: 'tmpfs', target: '/space' }] as const;
    expect((await runIsolated('sh', ['-c', script], { mounts })).stdout).toBe('written\n');
    expect((await runIsolated('sh', ['-c', script], { mounts, selinux })).stdout).toBe('written\n');
    const refused = await runIsolated('sh', ['-c', script], { mounts, selinux: { process: box } });
    expect(refused.stdout).toBe('');
    expect(refused.stderr).toContain('Permission denied');
  });

  test('the receipt is read back', async () => {
    const child = spawnIsolated('cat', { selinux });
    await child.spawned;
    expect(child.isolation?.selinux).toBe(box);
    child.stdin.end();
    expect((await child.exited).isolation.selinux).toBe(box);
  });

  test('it ends with whoever has started it, all the same', async () => {
    const { stdout } = await inChild(`
      import { writeSync } from 'node:fs';
      import { spawnIsolated } from 'cloister';
      const child = spawnIsolated('sleep', ['1000'], { selinux: { process: '${box}' }, stdio: 'ignore' });
      await child.spawned;
      writeSync(1, String(child.pid));
      process.kill(process.pid, 'SIGKILL');
    `);
    const pid = Number(stdout);
    expect(pid).toBeGreaterThan(1);
    await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow('ESRCH'), { timeout: 30_000 });
  });

  test('a context that the policy does not know is refused', async () => {
    expect(await told(runIsolated('true', { selinux: { process: 'cloister_u:cloister_r:nobody_t:s0' } }))).toMatchInlineSnapshot(`
      "ERR_CLOISTER_LABEL: EINVAL: label by SELinux cloister_u:cloister_r:nobody_t:s0 (write): this host's policy knows no such context
        Its users, roles, types and levels are the policy's: \`seinfo\` lists them, \`ls -Z\` and \`ps -Z\` show what is in use."
    `);
    expect(await told(runIsolated('true', { selinux: { mount: 'cloister_u:cloister_r:box_file_t:s7' } }))).toMatchInlineSnapshot(`
      "ERR_CLOISTER_LABEL: EINVAL: label by SELinux cloister_u:cloister_r:box_file_t:s7 (write): this host's policy knows no such context
        Its users, roles, types and levels are the policy's: \`seinfo\` lists them, \`ls -Z\` and \`ps -Z\` show what is in use."
    `);
  });

  test('explain() tells both', async () => {
    const text = (await explain('true', [], { selinux })).toString();
    expect(text).toContain(`"context", "${files}"`);
    expect(text).toContain(box);
  });
});
