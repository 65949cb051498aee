// Processors and memory nodes: cgroup-v2.rst, "Cpuset"; cpuset(7).
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { makeGroup } from '../helpers/cgroups.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { ask, startProbe } from '../helpers/probe.js';
import { saying } from './refusals.js';

const allowed = (pid: number | undefined): string | undefined => /^Cpus_allowed_list:\s+(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];

describeNeeding(['controller:cpuset', 'two-cpus'])('cpuset', () => {
  test('0 shows one processor inside', async () => {
    const [affinity] = await ask(['affinity'], { cgroup: { cpuset: { cpus: '0' } } });
    expect(affinity).toMatchObject({ errno: null, count: 1, cpus: [0] });
  });

  test('1 is another', async () => {
    const [affinity] = await ask(['affinity'], { cgroup: { cpuset: { cpus: '1', mems: '0' } } });
    expect(affinity).toMatchObject({ count: 1, cpus: [1] });
  });

  test('a list is several', async () => {
    const [affinity] = await ask(['affinity'], { cgroup: { cpuset: { cpus: '0-1' } } });
    expect(affinity).toMatchObject({ count: 2, cpus: [0, 1] });
  });

  test('a group without one has what we have', async () => {
    const [[inside], [outside]] = [await ask(['affinity'], { cgroup: {} }), await ask(['affinity'])];
    expect(inside.cpus).toEqual(outside.cpus);
  });

  test('update moves what runs', async () => {
    const group = await makeGroup({ cpuset: { cpus: '0' } });
    const { process: child, lines } = startProbe(['sleep'], { cgroup: group });
    await lines.until('ready');
    expect(allowed(child.pid)).toBe('0');
    await group.update({ cpuset: { cpus: '1' } });
    expect(allowed(child.pid)).toBe('1');
    expect((await group.limits()).cpuset?.cpus).toBe('1');
  });

  test('a memory node', async () => {
    const group = await makeGroup({ cpuset: { cpus: '0', mems: '0' } });
    expect((await group.limits()).cpuset).toMatchObject({ cpus: '0', mems: '0' });
  });

  test('processors that are not there', async () => {
    expect((await saying(makeGroup({ cpuset: { cpus: '4000' } }))).replaceAll(/\S*\/cloister-\S+\//g, 'GROUP/')).toMatchInlineSnapshot(`
      "ERANGE: set cpuset.cpus to 4000 GROUP/cpuset.cpus (write): the group above does not have all of 4000, or this host has not
        nproc and /sys/fs/cgroup/cpuset.cpus.effective tell what there is."
    `);
  });
});

testNeeding(['cgroup-v1', 'controller:cpuset'])('a partition on v1 is refused by name', async () => {
  expect(await saying(makeGroup({ cpuset: { cpus: '0', partition: 'root' } }))).toMatchInlineSnapshot(
    `"cgroup v1 cannot express cpuset.partition: it has exclusive sets, but no partitions"`,
  );
});

testNeeding(['cgroup-v2', 'root', 'controller:cpuset', 'two-cpus'])('a partition takes its processors away from others', async () => {
  const group = await makeGroup({ cpuset: { cpus: '1', partition: 'root' } });
  expect((await group.limits()).cpuset).toMatchObject({ cpus: '1', partition: 'root' });
  const other = await makeGroup();
  const [affinity] = await ask(['affinity'], { cgroup: other });
  expect(affinity.cpus).not.toContain(1);
  await group.update({ cpuset: { partition: 'member' } });
  expect((await group.limits()).cpuset).toMatchObject({ partition: 'member' });
});
