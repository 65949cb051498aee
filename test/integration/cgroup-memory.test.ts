// Memory: cgroup-v2.rst, "Memory"; cgroup-v1/memory.rst.
import { runIsolated } from 'cloister';
import { expect, test } from 'vitest';
import { askIn, makeGroup, startIn } from '../helpers/cgroups.js';
import { describeNeeding } from '../helpers/lane.js';
import { askFully, insideFixture, startProbe, toArguments, withFixtures } from '../helpers/probe.js';

const MiB = 2 ** 20;
const limit = 32 * MiB;
const cgroup = { memory: { max: limit, swapMax: 0 } };

describeNeeding(['controller:memory'])('a memory bomb', () => {
  test('is the program itself', async () => {
    const before = process.memoryUsage.rss();
    const result = await runIsolated(insideFixture('probe'), toArguments([['alloc', '512M']]), withFixtures({ cgroup }));
    expect(result).toMatchObject({ exitCode: null, signal: 'SIGKILL', reason: 'oom', stdout: '' });
    const { usage } = result;
    expect(usage.oomKills).toBe(1);
    expect(usage.memoryPeakSource).toBe('cgroup');
    // It came to the limit, and not past it.
    expect(usage.memoryPeakBytes).toBeGreaterThan(limit - MiB);
    expect(usage.memoryPeakBytes).toBeLessThanOrEqual(limit);
    // The host, who shares its memory until the program is executed, has paid for nothing.
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * MiB);
  });

  test('is the program, with init', async () => {
    const result = await runIsolated(insideFixture('probe'), toArguments([['alloc', '512M']]), withFixtures({ cgroup, init: true }));
    expect(result).toMatchObject({ exitCode: null, signal: 'SIGKILL', reason: 'oom', usage: { oomKills: 1 } });
  });

  test('is a child of the program, which fails', async () => {
    const { answers, result } = await askFully(
      [
        ['alloc-child', '512M'],
        ['exit', 3],
      ],
      { cgroup },
    );
    expect(answers[0]).toMatchObject({ signal: 'SIGKILL', code: null });
    expect(result).toMatchObject({ exitCode: 3, signal: null, reason: 'oom', usage: { oomKills: 1, memoryPeakSource: 'cgroup' } });
  });

  test('is a child of a program that gets over it', async () => {
    const { answers, result } = await askFully(
      [
        ['alloc-child', '512M'],
        ['alloc-child', '512M'],
        ['alloc', '1M'],
      ],
      { cgroup },
    );
    expect([answers[0].signal, answers[1].signal, answers[2].errno]).toEqual(['SIGKILL', 'SIGKILL', null]);
    expect(result).toMatchObject({ exitCode: 0, reason: 'exit', usage: { oomKills: 2 } });
  });

  test('is no bomb within its limit', async () => {
    const { answers, result } = await askFully([['alloc', '16M']], { cgroup });
    expect(answers[0]).toMatchObject({ errno: null, bytes: 16 * MiB });
    expect(result).toMatchObject({ exitCode: 0, reason: 'exit', usage: { oomKills: 0, memoryPeakSource: 'cgroup' } });
    expect(result.usage.memoryPeakBytes).toBeGreaterThan(16 * MiB);
    expect(result.usage.memoryPeakBytes).toBeLessThan(24 * MiB);
  });

  test('is a file of the sandbox: its tmpfs is charged, too', async () => {
    const result = await runIsolated(insideFixture('probe'), toArguments([['fill', '/tmp/file', '256M']]), withFixtures({ cgroup }));
    expect(result).toMatchObject({ signal: 'SIGKILL', reason: 'oom', stdout: '', usage: { oomKills: 1 } });
  });
});

describeNeeding(['controller:memory'])('a limit that is small', () => {
  test("1M starts a static program, as what comes before it is the caller's", async () => {
    const { exitCode, reason, usage } = await runIsolated(insideFixture('true'), [], withFixtures({ cgroup: { memory: '1M' } }));
    expect({ exitCode, reason }).toEqual({ exitCode: 0, reason: 'exit' });
    expect(usage.memoryPeakBytes).toBeLessThanOrEqual(MiB);
  });

  test('1M is in force', async () => {
    const { reason } = await runIsolated(
      insideFixture('probe'),
      toArguments([['alloc', '4M']]),
      withFixtures({ cgroup: { memory: { max: '1M', swapMax: 0 } } }),
    );
    expect(reason).toBe('oom');
  });
});

describeNeeding(['controller:memory', 'cgroup-v2'])('oomGroup', () => {
  const victims = async (oomGroup: boolean) => {
    const group = await makeGroup({ memory: { max: limit, swapMax: 0, oomGroup } });
    const bystander = await startIn(group, ['sleep']);
    await bystander.lines.until('ready');
    const bomb = await startIn(group, [['alloc', '512M']]);
    expect(await bomb.ended).toEqual({ code: null, signal: 'SIGKILL' });
    const { memory } = await group.stats();
    return { bystander, kills: memory?.events.oomKill, left: await group.processes(), group };
  };

  test('all die together', async () => {
    const { bystander, kills } = await victims(true);
    expect(await bystander.ended).toEqual({ code: null, signal: 'SIGKILL' });
    // The bystander and the bomb, and who was there besides.
    expect(kills).toBeGreaterThanOrEqual(2);
  });

  test('without it the others live on', async () => {
    const { bystander, kills, left } = await victims(false);
    expect({ kills, left }).toEqual({ kills: 1, left: [bystander.pid] });
  });

  test('in a sandbox: the program dies with its child', async () => {
    const { process: child, lines } = startProbe([['alloc-child', '512M'], 'sleep'], { cgroup: { memory: { max: limit, swapMax: 0, oomGroup: true } } });
    const result = await child.exited;
    expect(result).toMatchObject({ signal: 'SIGKILL', reason: 'oom' });
    expect(result.usage.oomKills).toBeGreaterThanOrEqual(2);
    expect(lines.seen).toEqual([]);
  });
});

describeNeeding(['controller:memory'])('what the group has', () => {
  test('is counted by kinds, in bytes', async () => {
    const group = await makeGroup({ memory: '64M' });
    const started = await startIn(group, [['alloc', '8M'], 'sleep']);
    await started.lines.until('ready');
    const { memory } = await group.stats();
    expect(memory?.anonBytes).toBeGreaterThan(8 * MiB);
    expect(memory?.anonBytes).toBeLessThan(10 * MiB);
    expect(memory?.currentBytes).toBeGreaterThan(8 * MiB);
    expect(memory?.peakBytes ?? Infinity).toBeGreaterThanOrEqual(memory?.currentBytes ?? 0);
    expect(memory?.events).toMatchObject({ max: 0, oom: 0, oomKill: 0 });
  });

  test('two groups do not see each other', async () => {
    const [one, two] = [await makeGroup({ memory: '64M' }), await makeGroup({ memory: '64M' })];
    await askIn(one, [['alloc', '16M']]);
    expect((await two.stats()).memory).toMatchObject({ currentBytes: 0 });
  });
});
