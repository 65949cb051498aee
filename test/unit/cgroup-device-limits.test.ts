// Every wrong limit's refusal, word by word: disks and other devices.
import { describe, expect, test } from 'vitest';
import { refusals } from '../helpers/wrong-limits.js';

describe('refused, with what it takes', () => {
  test('io', () => {
    expect(
      refusals('io', {}, 'sda', null, [1], [{}], [{ device: 'sda' }], [{ device: '' }], [{ device: '8' }], [{ device: '8:0\n8:1' }], [{ device: 8 }]),
    ).toMatchInlineSnapshot(`
      [
        "option 'cgroup.io' takes an array; got an instance of Object",
        "option 'cgroup.io' takes an array; got "sda"",
        "option 'cgroup.io' takes an array; got null",
        "option 'cgroup.io[0]' takes an object; got 1",
        "option 'cgroup.io[0].device' takes a block device: 'MAJOR:MINOR' or its path, such as '/dev/vda'; got undefined",
        "option 'cgroup.io[0].device' takes a block device: 'MAJOR:MINOR' or its path, such as '/dev/vda'; got "sda"",
        "option 'cgroup.io[0].device' takes a block device: 'MAJOR:MINOR' or its path, such as '/dev/vda'; got """,
        "option 'cgroup.io[0].device' takes a block device: 'MAJOR:MINOR' or its path, such as '/dev/vda'; got "8"",
        "option 'cgroup.io[0].device' takes a block device: 'MAJOR:MINOR' or its path, such as '/dev/vda'; got "8:0\\n8:1"",
        "option 'cgroup.io[0].device' takes a block device: 'MAJOR:MINOR' or its path, such as '/dev/vda'; got 8",
      ]
    `);
    const io = (limit: object) => [{ device: '8:0', ...limit }];
    expect(
      refusals(
        'io',
        io({ readBps: -1 }),
        io({ writeBps: '1X' }),
        io({ readIops: 1.5 }),
        io({ writeIops: '10' }),
        io({ weight: 0 }),
        io({ weight: 10_001 }),
        io({ bps: 1 }),
      ),
    ).toMatchInlineSnapshot(`
      [
        "option 'cgroup.io[0].readBps' takes bytes, such as '512M' or 536870912, or 'max'; got -1",
        "option 'cgroup.io[0].writeBps' takes bytes, such as '512M' or 536870912, or 'max'; got "1X"",
        "option 'cgroup.io[0].readIops' takes a whole number from 1 on, or 'max'; got 1.5",
        "option 'cgroup.io[0].writeIops' takes a whole number from 1 on, or 'max'; got "10"",
        "option 'cgroup.io[0].weight' takes a whole number from 1 to 10000; got 0",
        "option 'cgroup.io[0].weight' takes a whole number from 1 to 10000; got 10001",
        "option 'cgroup.io[0].bps' takes nothing: there is no such option; got 1",
      ]
    `);
    expect(
      refusals('io', [{ device: '/no/such/disk', readBps: 1 }], [{ device: '/dev/null', readBps: 1 }], [{ device: '/etc/passwd', readBps: 1 }]),
    ).toMatchInlineSnapshot(`
      [
        "option 'cgroup.io[0].device' takes a block device: 'MAJOR:MINOR' or its path, such as '/dev/vda'; got "/no/such/disk"",
        "option 'cgroup.io[0].device' takes a block device: 'MAJOR:MINOR' or its path, such as '/dev/vda'; got "/dev/null"",
        "option 'cgroup.io[0].device' takes a block device: 'MAJOR:MINOR' or its path, such as '/dev/vda'; got "/etc/passwd"",
      ]
    `);
  });

  test('devices', () => {
    expect(
      refusals('devices', {}, null, 'all', [null], ['a'], [{}], [{ allow: true }], [{ allow: 'yes', type: 'c' }], [{ allow: true, type: 'd' }]),
    ).toMatchInlineSnapshot(`
      [
        "option 'cgroup.devices' takes an array; got an instance of Object",
        "option 'cgroup.devices' takes an array; got null",
        "option 'cgroup.devices' takes an array; got "all"",
        "option 'cgroup.devices[0]' takes an object; got null",
        "option 'cgroup.devices[0]' takes an object; got "a"",
        "option 'cgroup.devices[0].allow' takes true or false; got undefined",
        "option 'cgroup.devices[0].type' takes 'a', 'b' or 'c'; got undefined",
        "option 'cgroup.devices[0].allow' takes true or false; got "yes"",
        "option 'cgroup.devices[0].type' takes 'a', 'b' or 'c'; got "d"",
      ]
    `);
    const rule = (more: object) => [{ allow: true, type: 'c', ...more }];
    expect(
      refusals(
        'devices',
        rule({ major: -1 }),
        rule({ major: 1.5 }),
        rule({ major: '1' }),
        rule({ minor: 2 ** 32 }),
        rule({ access: '' }),
        rule({ access: 'x' }),
        rule({ access: 'rr' }),
        rule({ access: 'rwm ' }),
        rule({ mode: 'r' }),
        [{ allow: true, type: 'a', major: 1 }],
        [{ allow: true, type: 'a', access: 'r' }],
      ),
    ).toMatchInlineSnapshot(`
      [
        "option 'cgroup.devices[0].major' takes a whole number from 0 to 4294967295; got -1",
        "option 'cgroup.devices[0].major' takes a whole number from 0 to 4294967295; got 1.5",
        "option 'cgroup.devices[0].major' takes a whole number from 0 to 4294967295; got "1"",
        "option 'cgroup.devices[0].minor' takes a whole number from 0 to 4294967295; got 4294967296",
        "option 'cgroup.devices[0].access' takes some of 'r', 'w' and 'm' (mknod); got """,
        "option 'cgroup.devices[0].access' takes some of 'r', 'w' and 'm' (mknod); got "x"",
        "option 'cgroup.devices[0].access' takes some of 'r', 'w' and 'm' (mknod); got "rr"",
        "option 'cgroup.devices[0].access' takes some of 'r', 'w' and 'm' (mknod); got "rwm "",
        "option 'cgroup.devices[0].mode' takes nothing: there is no such option; got "r"",
        "option 'cgroup.devices[0].type' takes 'b' or 'c' with a major, a minor or an access: 'a' means all of all devices; got "a"",
        "option 'cgroup.devices[0].type' takes 'b' or 'c' with a major, a minor or an access: 'a' means all of all devices; got "a"",
      ]
    `);
  });

  test('hugetlb', () => {
    expect(
      refusals('hugetlb', 1, null, { '2M': 1 }, { '2MB\n1GB': 1 }, { '../memory': 1 }, { '2MB': -1 }, { '2MB': 'few' }, { '2MB': null }),
    ).toMatchInlineSnapshot(`
      [
        "option 'cgroup.hugetlb' takes an object; got 1",
        "option 'cgroup.hugetlb' takes an object; got null",
        "option 'cgroup.hugetlb.2M' takes nothing: a size of pages is written as '2MB' or '1GB'; got 1",
        "option 'cgroup.hugetlb.2MB
      1GB' takes nothing: a size of pages is written as '2MB' or '1GB'; got 1",
        "option 'cgroup.hugetlb.../memory' takes nothing: a size of pages is written as '2MB' or '1GB'; got 1",
        "option 'cgroup.hugetlb.2MB' takes bytes, such as '512M' or 536870912, or 'max'; got -1",
        "option 'cgroup.hugetlb.2MB' takes bytes, such as '512M' or 536870912, or 'max'; got "few"",
        "option 'cgroup.hugetlb.2MB' takes bytes, such as '512M' or 536870912, or 'max'; got null",
      ]
    `);
  });

  test('rdma', () => {
    expect(
      refusals(
        'rdma',
        1,
        null,
        { mlx5_0: 1 },
        { 'a b': {} },
        { 'a=b': {} },
        { '': {} },
        { mlx5_0: { handles: -1 } },
        { mlx5_0: { objects: '1' } },
        { mlx5_0: { max: 1 } },
      ),
    ).toMatchInlineSnapshot(`
      [
        "option 'cgroup.rdma' takes an object; got 1",
        "option 'cgroup.rdma' takes an object; got null",
        "option 'cgroup.rdma.mlx5_0' takes an object; got 1",
        "option 'cgroup.rdma.a b' takes nothing: that is no name of a device; got an instance of Object",
        "option 'cgroup.rdma.a=b' takes nothing: that is no name of a device; got an instance of Object",
        "option 'cgroup.rdma.' takes nothing: that is no name of a device; got an instance of Object",
        "option 'cgroup.rdma.mlx5_0.handles' takes a whole number from 0 on, or 'max'; got -1",
        "option 'cgroup.rdma.mlx5_0.objects' takes a whole number from 0 on, or 'max'; got "1"",
        "option 'cgroup.rdma.mlx5_0.max' takes nothing: there is no such option; got 1",
      ]
    `);
  });

  test('misc', () => {
    expect(refusals('misc', 1, null, { sev: -1 }, { sev: '1' }, { 'a b': 1 }, { 'sev\n': 1 }, { '': 1 })).toMatchInlineSnapshot(`
      [
        "option 'cgroup.misc' takes an object; got 1",
        "option 'cgroup.misc' takes an object; got null",
        "option 'cgroup.misc.sev' takes a whole number from 0 on, or 'max'; got -1",
        "option 'cgroup.misc.sev' takes a whole number from 0 on, or 'max'; got "1"",
        "option 'cgroup.misc.a b' takes nothing: that is no name of a resource; got 1",
        "option 'cgroup.misc.sev
      ' takes nothing: that is no name of a resource; got 1",
        "option 'cgroup.misc.' takes nothing: that is no name of a resource; got 1",
      ]
    `);
  });

  test('network', () => {
    expect(
      refusals(
        'network',
        1,
        null,
        { classid: 1 },
        { classId: -1 },
        { classId: 2 ** 32 },
        { classId: '0x1' },
        { priorities: [] },
        { priorities: { lo: -1 } },
        { priorities: { lo: 1.5 } },
        { priorities: { 'a b': 1 } },
        { priorities: { 'a/b': 1 } },
        { priorities: { '': 1 } },
        { priorities: { abcdefghijklmnop: 1 } },
      ),
    ).toMatchInlineSnapshot(`
      [
        "option 'cgroup.network' takes an object; got 1",
        "option 'cgroup.network' takes an object; got null",
        "option 'cgroup.network.classid' takes nothing: there is no such option; got 1",
        "option 'cgroup.network.classId' takes a whole number from 0 to 4294967295; got -1",
        "option 'cgroup.network.classId' takes a whole number from 0 to 4294967295; got 4294967296",
        "option 'cgroup.network.classId' takes a whole number from 0 to 4294967295; got "0x1"",
        "option 'cgroup.network.priorities' takes an object; got an array of 0",
        "option 'cgroup.network.priorities.lo' takes a whole number from 0 to 4294967295; got -1",
        "option 'cgroup.network.priorities.lo' takes a whole number from 0 to 4294967295; got 1.5",
        "option 'cgroup.network.priorities.a b' takes nothing: that is no name of a network interface; got 1",
        "option 'cgroup.network.priorities.a/b' takes nothing: that is no name of a network interface; got 1",
        "option 'cgroup.network.priorities.' takes nothing: that is no name of a network interface; got 1",
        "option 'cgroup.network.priorities.abcdefghijklmnop' takes nothing: that is no name of a network interface; got 1",
      ]
    `);
  });
});
