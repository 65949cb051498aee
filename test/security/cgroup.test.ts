// A sandbox that is given its own control group, so that it can make others below it, and wants more than it was given.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Cgroup, type CgroupLimits, runIsolated, type SpawnOptions, spawnIsolated } from 'cloister';
import { expect, onTestFinished, test } from 'vitest';
import { describeNeeding } from '../helpers/lane.js';

const delegated = (cgroup: CgroupLimits | Cgroup): SpawnOptions => ({ cgroup, mounts: [{ type: 'cgroup', target: '/sys/fs/cgroup' }] });

/** What a shell as root inside says. */
async function inside(script: string, options: SpawnOptions): Promise<string> {
  const { stdout, stderr } = await runIsolated('sh', ['-c', script], options);
  return `${stdout}${stderr}`.replace(/^sh: \d+: /gm, '');
}

/** Its directories, in each hierarchy: that is nobody's business but ours. */
const placesOf = (group: unknown): string[] => (group as { places: readonly { directory: string }[] }).places.map(({ directory }) => directory);

/** Each file below the mount that could be a limit, and can be opened for writing, in the group itself. */
const writable = `
for directory in /sys/fs/cgroup /sys/fs/cgroup/*; do
  [ -e $directory/cgroup.procs ] || continue
  for file in $directory/*; do [ -f $file ] && ( : >>$file ) 2>/dev/null && echo \${file##*/}; done
done | sort -u`;

describeNeeding(['controller:memory', 'controller:pids', 'root'])('a group that is handed in', () => {
  test('its own limits are not the sandbox’s to change, nor its freezer, nor anything but who is in it', async () => {
    const files = (await inside(writable, delegated({ memory: '64M', pids: 20 }))).split('\n').filter(Boolean);
    expect(files.filter((name) => !['cgroup.procs', 'cgroup.threads', 'cgroup.subtree_control', 'tasks'].includes(name))).toEqual([]);
    expect(files).toContain('cgroup.procs');
  });

  test('is as far up as it can see', async () => {
    const said = await inside('cat /proc/self/cgroup; ls /sys/fs/cgroup/.. | wc -l; cat /proc/self/mountinfo', delegated({ memory: '64M', pids: 20 }));
    expect(said).not.toContain('cloister-');
    expect(said.match(/^\d+:[^:]*:(.*)$/gm)?.every((line) => line.endsWith(':/'))).toBe(true);
  });

  test('a child with a larger limit is held by the group above it', async () => {
    const script = `
      for top in /sys/fs/cgroup /sys/fs/cgroup/memory; do [ -e $top/cgroup.procs ] && break; done
      [ -e $top/cgroup.subtree_control ] && mkdir $top/self && echo 0 >$top/self/cgroup.procs && echo +memory >$top/cgroup.subtree_control
      mkdir $top/more && { echo 4G >$top/more/memory.max || echo 4G >$top/more/memory.limit_in_bytes; } 2>/dev/null
      echo 0 >$top/more/cgroup.procs && exec python3 -c 'bytearray(200 << 20)'`;
    const { reason, usage, stderr } = await runIsolated('sh', ['-c', script], delegated({ memory: '48M' }));
    expect({ reason, stderr }).toEqual({ reason: 'oom', stderr: '' });
    expect(usage.memoryPeakBytes).toBeLessThanOrEqual(48 * 2 ** 20);
  });

  test('groups that it leaves inside go with it, frozen ones too', async () => {
    const child = spawnIsolated(
      'sh',
      [
        '-c',
        `for top in /sys/fs/cgroup /sys/fs/cgroup/unified; do [ -e $top/cgroup.procs ] && break; done
         mkdir -p $top/a/b/c; sleep 1000 & echo $! >$top/a/b/c/cgroup.procs; echo 1 >$top/a/b/c/cgroup.freeze; echo ready; read -r _`,
      ],
      delegated({ pids: 20 }),
    );
    await new Promise((resolve) => child.stdout?.once('data', resolve));
    const directories = placesOf(child.cgroup);
    expect(directories.every((directory) => existsSync(directory))).toBe(true);
    expect(directories.some((directory) => existsSync(join(directory, 'a/b/c')))).toBe(true);
    child.kill('SIGKILL');
    await child.exited;
    expect(directories.filter((directory) => existsSync(directory))).toEqual([]);
  });

  test('a name like that of a dead owner, made inside, moves nobody to remove what is outside', async () => {
    const group = await Cgroup.create(undefined, { pids: 20 });
    onTestFinished(() => group[Symbol.asyncDispose]());
    const [, namespace] = group.name.split('-');
    await inside(`for top in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $top/cloister-${namespace}-1-1-0.0; done 2>/dev/null`, delegated({ pids: 20 }));
    const next = await Cgroup.create();
    await next.delete();
    expect(await group.processes()).toEqual([]);
  });

  test('a group that is borrowed is shown, and is nobody’s inside', async () => {
    const group = await Cgroup.create(undefined, { pids: 20 });
    onTestFinished(() => group[Symbol.asyncDispose]());
    expect(await inside(writable, delegated(group))).toBe('');
  });

  test('what is mounted inside has no release agent that would run on the host (CVE-2022-0492)', async () => {
    const agents = await inside('find /sys/fs/cgroup -name release_agent; mkdir /tmp/x && mount -t cgroup -o rdma none /tmp/x', {
      ...delegated({ memory: '64M' }),
      capabilities: ['CAP_SYS_ADMIN'],
    });
    expect(agents).not.toContain('release_agent\n');
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain('/tmp/x ');
  });
});
