// The library within its own sandbox: a control group that is given to the user inside.
import { runIsolated, type SpawnOptions } from 'cloister';
import { expect, test } from 'vitest';
import { groupsOfProcess } from '../helpers/cgroups.js';
import { fixturesDirectory, repository } from '../helpers/fixtures.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';

/** What a program of the library's prints, as JSON, in a sandbox with limits that it may divide further. */
async function inside(script: string, options: SpawnOptions = {}): Promise<unknown> {
  const prologue = `
    import { readFileSync } from 'node:fs';
    import { Cgroup, runIsolated, spawnIsolated } from 'cloister';
    const tell = (value) => console.log(JSON.stringify(value));
    const mounts = [{ type: 'bind', source: '/fixtures', target: '/probe', readonly: true }];
  `;
  const { stdout, stderr } = await runIsolated(process.execPath, ['--input-type=module', '--eval', prologue + script], {
    cwd: repository,
    cgroup: { memory: '512M', cpu: 1, pids: 200 },
    // The default profile lets nobody make namespaces without CAP_SYS_ADMIN.
    seccomp: 'unconfined',
    // An inner /proc may not show what is covered in the outer one.
    maskedPaths: [],
    readonlyPaths: [],
    ...options,
    mounts: [
      { type: 'cgroup', target: '/sys/fs/cgroup' },
      { type: 'bind', source: repository, target: repository, readonly: true },
      { type: 'bind', source: fixturesDirectory(), target: '/fixtures', readonly: true },
    ],
  });
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

describeNeeding(['controller:memory', 'controller:cpu', 'controller:pids', 'user-namespaces', 'plain-root'])(
  'in a sandbox with a control group of its own',
  () => {
    const asUser = { user: { uid: 1000, gid: 1000 } } as const;
    // Root inside, without this capability, could not map itself into a further user namespace.
    const asRoot = { capabilities: ['CAP_SETFCAP'] } as const;

    test('support() tells of what was given, and of nothing else', async () => {
      const told = await inside(
        'const { controllers, root, why } = await Cgroup.support(); tell({ names: Object.keys(controllers).sort(), root, why });',
        asUser,
      );
      expect(told).toMatchObject({ root: expect.stringMatching(/^\/sys\/fs\/cgroup/) });
      expect((told as { names: string[] }).names).toEqual(expect.arrayContaining(['cpu', 'memory', 'pids']));
      expect((told as { why?: string }).why).toBeUndefined();
    });

    testNeeding(['root'])('as root inside', async () => {
      expect(await inside(limited, asRoot)).toEqual(expectedOfLimited);
    });

    test('as another user inside', async () => {
      expect(await inside(limited, asUser)).toEqual(expectedOfLimited);
    });

    test('a memory bomb within ends alone', async () => {
      const told = await inside(
        `
      const { reason, usage } = await runIsolated('/probe/probe', ['alloc', '128M'], { mounts, cgroup: { memory: { max: '32M', swapMax: 0 } } });
      tell([reason, usage.oomKills]);
    `,
        asUser,
      );
      expect(told).toEqual(['oom', 1]);
    });

    test('the outer limit holds for what is within', async () => {
      const told = await inside(
        `
      const { stdout } = await runIsolated('/probe/probe', ['forkbomb-light', '300'], { mounts, cgroup: { pids: 250 } });
      const { errno, forked } = JSON.parse(stdout);
      tell([errno, forked < 200]);
    `,
        asUser,
      );
      expect(told).toEqual(['EAGAIN', true]);
    });

    test('a group there is the root of the one that sees it', async () => {
      const told = await inside(
        `
      const { stdout } = await runIsolated('/probe/probe', ['cgroup'], { mounts, cgroup: { pids: 5 } });
      tell([...new Set(JSON.parse(stdout).cgroup.map(({ path }) => path))]);
    `,
        asUser,
      );
      expect(told).toEqual(['/']);
    });

    test('it cannot raise what it was given', async () => {
      const told = await inside(
        `
      import { writeFileSync } from 'node:fs';
      const { root } = await Cgroup.support();
      const files = ['memory.max', 'memory.limit_in_bytes', 'pids.max', 'cpu.max', 'cpu.cfs_quota_us'];
      const folders = ['', '/..', '/../memory', '/../pids', '/../cpu'];
      const written = [];
      for (const folder of folders) for (const file of files) {
        try { readFileSync(root + folder + '/' + file); } catch { continue; }
        try { writeFileSync(root + folder + '/' + file, file === 'cpu.max' ? 'max 100000' : '-1'); written.push(folder + '/' + file); } catch {}
      }
      tell(written);
    `,
        asUser,
      );
      expect(told).toEqual([]);
    });

    test('nothing is left of it', () => {
      expect(groupsOfProcess()).toEqual([]);
    });
  },
);

const limited = `
  const child = spawnIsolated('/probe/probe', ['sleep'], { mounts, cgroup: { memory: '32M', cpu: 0.5, pids: 8 } });
  await child.spawned;
  const { memory, cpu, pids } = await child.cgroup.limits();
  const stats = await child.stats();
  child.kill();
  const { usage, isolation } = await child.exited;
  tell({ max: memory.max, cpu: cpu.max, pids, populated: stats.populated && stats.pids.current > 0, source: usage.memoryPeakSource, controllers: [...isolation.cgroup.controllers].sort() });
`;
const expectedOfLimited = {
  max: 32 * 2 ** 20,
  cpu: 0.5,
  pids: 8,
  populated: true,
  source: 'cgroup',
  controllers: expect.arrayContaining(['cpu', 'memory', 'pids']),
};
