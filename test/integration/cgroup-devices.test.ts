// Devices: cgroup-v1/devices.rst, and on v2 a BPF program that gives the same answers.
import { join } from 'node:path';
import type { Cgroup, CgroupError, DeviceRule } from 'cloister';
import { expect, test } from 'vitest';
import { askIn, makeGroup, startIn } from '../helpers/cgroups.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { ask, parseAnswer, startProbe } from '../helpers/probe.js';
import { temporary } from './trees.js';

const nothing: DeviceRule = { allow: false, type: 'a' };
const everything: DeviceRule = { allow: true, type: 'a' };
const nullDevice = { type: 'c', major: 1, minor: 3 } as const;
const zeroDevice = { type: 'c', major: 1, minor: 5 } as const;

/** Which of r, w and m can be had of /dev/null and /dev/zero, and whether a block device can be made. */
async function rights(group: Cgroup): Promise<Record<'null' | 'zero' | 'block', string>> {
  const directory = temporary();
  const answers = await askIn(group, [
    ['open', '/dev/null', 'r'],
    ['open', '/dev/null', 'w'],
    ['mknod', join(directory, 'null'), 'c', 1, 3],
    ['open', '/dev/zero', 'r'],
    ['open', '/dev/zero', 'w'],
    ['mknod', join(directory, 'zero'), 'c', 1, 5],
    ['mknod', join(directory, 'block'), 'b', 7, 0],
  ]);
  const letters = answers.map(({ errno }, index) => {
    if (errno !== null && errno !== 'EPERM') throw new Error(`the answer is ${errno}`);
    return errno === null ? 'rwmrwmm'.charAt(index) : '';
  });
  return { null: letters.slice(0, 3).join(''), zero: letters.slice(3, 6).join(''), block: letters[6] ?? '' };
}
const under = async (...devices: DeviceRule[]) => rights(await makeGroup({ devices }));

describeNeeding(['root', 'capability:CAP_MKNOD', 'device-rules'])('rules', () => {
  test('none: everything is allowed', async () => {
    expect(await rights(await makeGroup())).toEqual({ null: 'rwm', zero: 'rwm', block: 'm' });
    expect(await under()).toEqual({ null: 'rwm', zero: 'rwm', block: 'm' });
  });

  test('deny all', async () => {
    expect(await under(nothing)).toEqual({ null: '', zero: '', block: '' });
  });

  const subsets = ['r', 'w', 'm', 'rw', 'rm', 'wm', 'rwm'];
  test.each(subsets)('allow %s of one, and of no other', async (access) => {
    expect(await under(nothing, { allow: true, ...nullDevice, access })).toEqual({ null: access, zero: '', block: '' });
  });

  test.each(subsets)('deny %s of one, and of no other', async (access) => {
    const rest = [...'rwm'].filter((letter) => !access.includes(letter)).join('');
    expect(await under(everything, { allow: false, ...nullDevice, access })).toEqual({ null: rest, zero: 'rwm', block: 'm' });
  });

  test('a major alone is all of its minors, a type alone all of its devices', async () => {
    expect(await under(nothing, { allow: true, type: 'c', major: 1 })).toEqual({ null: 'rwm', zero: 'rwm', block: '' });
    expect(await under(nothing, { allow: true, type: 'c' })).toEqual({ null: 'rwm', zero: 'rwm', block: '' });
    expect(await under(nothing, { allow: true, type: 'b' })).toEqual({ null: '', zero: '', block: 'm' });
    expect(await under(nothing, { allow: true, type: 'c', minor: 5 })).toEqual({ null: '', zero: 'rwm', block: '' });
  });

  test('what is allowed twice is allowed together', async () => {
    expect(await under(nothing, { allow: true, ...nullDevice, access: 'r' }, { allow: true, ...nullDevice, access: 'w' })).toEqual({
      null: 'rw',
      zero: '',
      block: '',
    });
  });

  test('a part of what was allowed is denied again', async () => {
    expect(await under(nothing, { allow: true, ...nullDevice }, { allow: false, ...nullDevice, access: 'w' })).toEqual({ null: 'rm', zero: '', block: '' });
  });

  // v1 forgets a denial that no exception before it matches exactly (match_exception in security/device_cgroup.c).
  test.each<[string, DeviceRule[], Record<string, string>]>([
    ['one of several that are allowed', [nothing, { allow: true, type: 'c', major: 1 }, { allow: false, ...nullDevice }], { null: '', zero: 'rwm' }],
    ['one of all that are allowed', [nothing, { allow: true, type: 'c' }, { allow: false, ...nullDevice, access: 'w' }], { null: 'rm', zero: 'rwm' }],
    ['all but one', [everything, { allow: false, type: 'c', major: 1 }, { allow: true, ...zeroDevice }], { null: '', zero: 'rwm' }],
  ])('%s holds, or is refused: never something else', async (_, devices, expected) => {
    const group = await makeGroup({ devices }).catch((error: CgroupError) => error);
    if (group instanceof Error) expect(group.code).toBe('ERR_CLOISTER_CGROUP_UNSUPPORTED');
    else expect(await rights(group)).toMatchObject(expected);
  });

  test('update is in force for what runs already', async () => {
    const group = await makeGroup();
    const { lines, stdin } = await startIn(group, [['open', '/dev/null', 'r'], 'cat', ['open', '/dev/null', 'r']]);
    expect(parseAnswer('open', await lines.next()).errno).toBeNull();
    await group.update({ devices: [nothing] });
    stdin.end();
    expect(parseAnswer('open', await lines.next()).errno).toBe('EPERM');
  });

  test('update replaces them as a whole', async () => {
    const group = await makeGroup({ devices: [nothing, { allow: true, ...nullDevice }] });
    expect(await rights(group)).toEqual({ null: 'rwm', zero: '', block: '' });
    await group.update({ devices: [nothing, { allow: true, ...zeroDevice, access: 'r' }] });
    expect(await rights(group)).toEqual({ null: '', zero: 'r', block: '' });
    await group.update({ devices: [] });
    expect(await rights(group)).toEqual({ null: 'rwm', zero: 'rwm', block: 'm' });
  });

  testNeeding(['controller:cpu'])('another update leaves them alone', async () => {
    const group = await makeGroup({ devices: [nothing] });
    await group.update({ cpu: 1 });
    expect(await rights(group)).toEqual({ null: '', zero: '', block: '' });
  });

  test('limits() reads them back', async () => {
    const group = await makeGroup({ devices: [nothing, { allow: true, ...nullDevice, access: 'wr' }] });
    const now = (await group.limits()).devices?.filter(({ allow }) => allow);
    expect(now).toEqual([{ allow: true, ...nullDevice, access: 'rw' }]);
  });

  test('many', async () => {
    const devices = [
      nothing,
      ...Array.from({ length: 200 }, (_, minor): DeviceRule => ({ allow: true, type: 'c', major: 240, minor })),
      { allow: true, ...zeroDevice },
    ];
    expect(await under(...devices)).toEqual({ null: '', zero: 'rwm', block: '' });
  });
});

describeNeeding(['root', 'device-rules'])('in a sandbox', () => {
  test('what is there may still be refused', async () => {
    const devices = [nothing, { allow: true, ...zeroDevice, access: 'r' }] as const;
    const [no, yes, not] = await ask(
      [
        ['open', '/dev/null', 'r'],
        ['open', '/dev/zero', 'r'],
        ['open', '/dev/zero', 'w'],
      ],
      { cgroup: { devices } },
    );
    expect([no.errno, yes.errno, not.errno]).toEqual(['EPERM', null, 'EPERM']);
  });

  test('with none, all that it has can be used', async () => {
    const [none] = await ask([['open', '/dev/null', 'rw']], { cgroup: { devices: [] } });
    expect(none.errno).toBeNull();
  });

  test('rules for one do not touch another', async () => {
    const { process: child, lines } = startProbe(['cat', ['open', '/dev/null', 'r']], { cgroup: { devices: [nothing] } });
    await child.spawned;
    const [other] = await ask([['open', '/dev/null', 'r']], { cgroup: {} });
    expect(other.errno).toBeNull();
    child.stdin.end();
    expect(parseAnswer('open', await lines.next()).errno).toBe('EPERM');
    await child.exited;
  });
});

testNeeding(['unprivileged', 'v2-group'])('an ordinary user may not make rules, and is told so', async () => {
  const error = await makeGroup({ devices: [nothing] }).then(
    () => undefined,
    (reason: CgroupError) => reason,
  );
  expect(error).toMatchObject({ name: 'CgroupError' });
});
