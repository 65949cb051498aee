// The receipt, read back from a living process.
import { runIsolated, spawnIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { testNeeding } from '../helpers/lane.js';
import { startProbe } from '../helpers/probe.js';

test('is what the kernel says, while it lives and in the result', async () => {
  const { process: child, lines } = startProbe(['ids', 'sleep']);
  expect(child.isolation).toBeUndefined();
  const inside = JSON.parse(await lines.next());
  await child.spawned;
  const { isolation } = child;
  expect(isolation).toMatchObject({ level: 'namespaces', capabilities: [], noNewPrivileges: true, idMap: { uids: inside.uidMap, gids: inside.gidMap } });
  expect(isolation?.namespaces).toMatchObject({ user: 'new', pid: 'new', mount: 'new', net: 'new', time: 'host' });
  child.kill('SIGKILL');
  const result = await child.exited;
  expect(result.isolation).toEqual(isolation);
  expect(child.isolation).toEqual(isolation);
});

testNeeding(['program:setpriv'])('not what was asked for: a program that gives up more is told with less', async () => {
  const script = 'exec setpriv --bounding-set=-all --inh-caps=-all sh -c "echo ready; exec sleep 60"';
  const child = spawnIsolated('sh', ['-c', script], { capabilities: ['CAP_SETPCAP', 'CAP_NET_RAW'], noNewPrivileges: false });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  expect(child.isolation).toMatchObject({ capabilities: [], noNewPrivileges: false });
  await child[Symbol.asyncDispose]();
  // Unless it is asked while it lives, it is that of the plan.
  const { isolation } = await runIsolated('sh', ['-c', script.replace('sleep 60', 'true')], { capabilities: ['CAP_SETPCAP', 'CAP_NET_RAW'] });
  expect(isolation.capabilities).toEqual(['CAP_SETPCAP', 'CAP_NET_RAW']);
});

describe('side channels', () => {
  const lines = { 'store-bypass': /^Speculation_Store_Bypass:\s*(.*)$/m, 'indirect-branch': /^SpeculationIndirectBranch:\s*(.*)$/m } as const;
  const status = async (speculation: readonly ('store-bypass' | 'indirect-branch')[]): Promise<string> =>
    (await runIsolated('cat', ['/proc/self/status'], { speculation })).stdout;

  test.each(['store-bypass', 'indirect-branch'] as const)('%s is closed for the program, and open without', async (name) => {
    const before = lines[name].exec(await status([]))?.[1] ?? '';
    const bound = await status([name]).catch(({ message }: Error) => message);
    // Not every machine leaves it to its programs.
    if (bound.includes('the control of')) {
      expect(bound).toContain(`the control of ${name} is switched off for all processes of this machine`);
      expect(before).not.toMatch(/^(thread|conditional)/);
      return;
    }
    const after = lines[name].exec(bound)?.[1] ?? '';
    const vulnerable = /^(thread vulnerable|conditional enabled)$/.test(before);
    expect(after).toMatch(vulnerable ? /^(thread force mitigated|conditional force disabled)$/ : /./);
    if (!vulnerable) expect(after).toBe(before);
  });

  test('a core of its own, or why not', async () => {
    const told = await runIsolated('true', { coreScheduling: true }).then(
      ({ exitCode }) => exitCode,
      ({ message }: Error) => message,
    );
    expect([
      0,
      'EINVAL: share no core (prctl): this kernel has no core scheduling\n  It is CONFIG_SCHED_CORE, since Linux 5.14. Leave coreScheduling out, or switch SMT off.',
    ]).toContain(told);
  });

  test('what the options take', () => {
    expect(() => spawnIsolated('true', { speculation: ['all'] as never })).toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'speculation[0]' takes 'store-bypass', 'indirect-branch' or 'l1d-flush'; got "all"]`,
    );
    expect(() => spawnIsolated('true', { coreScheduling: 1 as never })).toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'coreScheduling' takes true or false; got 1]`,
    );
  });
});
