// Who may make groups, and what is said to who may not: cgroup-v2.rst, "Delegation" and "No Internal Process Constraint".
import { Cgroup } from 'cloister';
import { expect, test } from 'vitest';
import { onPureV2, type V2Options } from '../helpers/delegation.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { refusal } from './refusals.js';

const prologue = `
  import { readFileSync } from 'node:fs';
  import { Cgroup, runIsolated } from 'cloister';
  const tell = (value) => console.log(typeof value === 'string' ? value : JSON.stringify(value));
  const said = (promise) => promise.then(
    ({ exitCode, name }) => exitCode === undefined ? 'made' : 'ended with ' + exitCode,
    ({ name, code, message, evidence = [] }) => [name + ' ' + code, message, ...evidence.map((line) => '- ' + line)].join('\\n'),
  );
  const where = () => readFileSync('/proc/self/cgroup', 'utf8').match(/^0::(.*)$/m)[1];
  const run = (cgroup) => runIsolated('/bin/true', [], { cgroup });
`;
const onV2 = (script: string, options?: V2Options): string =>
  onPureV2(prologue + script, options)
    .replaceAll(/cloister-[0-9a-z]+-\d+-[0-9a-z]+-[0-9a-z]+/g, 'OWN')
    .replaceAll(/^- .*0::/gm, '- /proc/self/cgroup: 0::')
    .replaceAll(/\((?:\d+, )*\d+(?:, …)?\)/g, '(PIDS)');

// hugetlb is the controller that also a hybrid host has on v2.
describeNeeding(['root', 'v2-group', 'controller:hugetlb', 'user-namespaces', 'program:unshare', 'program:setpriv'])('an ordinary user on cgroup v2', () => {
  const enabled = 'echo +hugetlb >"$home/cgroup.subtree_control"; ';

  test('without delegation is told so, and what grants it', () => {
    expect(onV2('tell(await said(run({})))')).toMatchInlineSnapshot(`
      "CgroupError ERR_CLOISTER_CGROUP_DELEGATION
      EACCES: no control group can be made below /sys/fs/cgroup/GROUP: uid 65534 may not write to it
        Run it where systemd delegates a group: systemd-run --user --scope -p Delegate=yes node …, or a service with [Service] Delegate=yes. In a container, cgroup2 must be mounted writable (podman does; docker run --privileged, or --cgroupns=private with a writable /sys/fs/cgroup).
      - /proc/self/cgroup: 0::/GROUP
      "
    `);
    expect(onV2('tell(await said(Cgroup.create()))')).toBe(onV2('tell(await said(run({})))').replace('ended with 0', 'made'));
    expect(onV2('const { mode, root, why } = await Cgroup.support(); tell({ mode, root, why });')).toBe(
      '{"mode":"v2","why":"/sys/fs/cgroup/GROUP: uid 65534 may not write to it"}\n',
    );
  });

  test('alone in a group that is theirs moves to a leaf of it, and has limits', () => {
    const told = onV2(
      `
      const before = where();
      tell(await said(run({ hugetlb: { '2MB': 0 } })));
      tell(where() === before ? 'stayed' : 'moved to ' + where().slice(before.length));
      const { root } = await Cgroup.support();
      tell(root.endsWith(before) ? 'below where it was' : root);
      const group = await Cgroup.create('mine', { hugetlb: { '2MB': '2M' } });
      tell((await group.limits()).hugetlb['2MB']);
      await group.delete();
    `,
      { setup: `${enabled} give "$D"` },
    );
    expect(told).toMatchInlineSnapshot(`
      "ended with 0
      moved to /OWN.1
      below where it was
      2097152
      "
    `);
  });

  test('stays where they are without need of a controller', () => {
    const script = 'const before = where(); tell(await said(run({}))); tell(where() === before)';
    expect(onV2(script, { setup: 'give "$D"' })).toBe('ended with 0\ntrue\n');
  });

  test('with others in the group is told why it cannot have controllers', () => {
    const setup = `${enabled} give "$D"; sleep 60 & other=$!; echo $other >"$D/cgroup.procs"; trap 'kill $other; wait $other 2>/dev/null; clean' EXIT`;
    expect(onV2(`tell(await said(run({ hugetlb: { '2MB': 0 } })))`, { setup })).toMatchInlineSnapshot(`
      "CgroupError ERR_CLOISTER_CGROUP_DELEGATION
      EBUSY: no control group can be made below /sys/fs/cgroup/GROUP: it has processes of its own (PIDS), and a group of v2 has either processes or children with controllers
        Start this program in a group of its own: systemd-run --user --scope -p Delegate=yes node … (--user not as root), or a service with [Service] Delegate=yes.
      - /proc/self/cgroup: 0::/GROUP
      "
    `);
    // A group without controllers is no matter.
    expect(onV2('tell(await said(run({})))', { setup })).toBe('ended with 0\n');
  });

  test('in a leaf of a group that is theirs has limits beside it', () => {
    const theirs = `${enabled} mkdir "$D/leaf"; give "$D" "$D/leaf"`;
    const others = `sleep 60 & other=$!; echo $other >"$D/leaf/cgroup.procs"; trap 'kill $other; wait $other 2>/dev/null; clean' EXIT`;
    const script = `const before = where(); tell(await said(run({ hugetlb: { '2MB': 0 } }))); tell(where() === before)`;
    // With others in the leaf, too, as in a session of somebody's: there is no need to move.
    expect(onV2(script, { setup: `${theirs}; ${others}`, at: '$D/leaf' })).toBe('ended with 0\ntrue\n');
  });

  test('whose group lacks the controller is told how to get it', () => {
    const setup = `echo -hugetlb >"$D/cgroup.subtree_control"; mkdir "$D/inner"; give "$D/inner"`;
    expect(onV2(`tell(await said(run({ hugetlb: { '2MB': 0 } })))`, { setup, at: '$D/inner' })).toMatchInlineSnapshot(`
      "CgroupError ERR_CLOISTER_CGROUP_DELEGATION
      EACCES: no control group can be made below /sys/fs/cgroup/GROUP: hugetlb is not enabled for its children, and uid 65534 may not write to cgroup.subtree_control
        systemctl edit user@.service, with [Service] Delegate=cpu cpuset io memory pids hugetlb, grants them to users (as root; log in again). For a service: Delegate=yes.
      - /proc/self/cgroup: 0::/GROUP/inner
      "
    `);
  });

  test('owns a group but is not in it', () => {
    const told = onV2(
      `tell(await said(Cgroup.create(undefined, {}, { parent: '/sys/fs/cgroup' + where().replace(/other$/, 'theirs') }).then((group) => runIsolated('/bin/true', [], { cgroup: group }))))`,
      {
        setup: 'mkdir "$D/theirs"; give "$D/theirs"',
        at: '$D/other',
      },
    );
    expect(told).toMatchInlineSnapshot(`
      "CgroupError ERR_CLOISTER_CGROUP
      EACCES: enter the control group /sys/fs/cgroup/GROUP/theirs/OWN.0 (clone3): processes may be moved only by who may write to cgroup.procs of this group and of the nearest group above both
        This process itself has to be inside the delegated group that /sys/fs/cgroup/GROUP/theirs/OWN.0 is in.
      "
    `);
  });

  test('may not decide about devices', () => {
    expect(onV2(`tell(await said(run({ devices: [{ allow: false, type: 'a' }] })))`, { setup: 'give "$D"' })).toMatchInlineSnapshot(`
      "CgroupError ERR_CLOISTER_CGROUP
      EPERM: limit devices /sys/fs/cgroup/GROUP/OWN.0 (bpf): a device program may be attached by root only (CAP_BPF or CAP_SYS_ADMIN, and CAP_NET_ADMIN, in the initial user namespace)
        Leave \`devices\` out: in a user namespace no device node can be made, and /dev has the harmless ones.
      "
    `);
  });

  test('finds it mounted read-only, as in a container', () => {
    const readonly = { setup: 'give "$D"', mounts: 'mount -o remount,ro,bind /sys/fs/cgroup' };
    expect(onV2('tell(await said(run({})))', readonly)).toMatchInlineSnapshot(`
      "CgroupError ERR_CLOISTER_CGROUP_DELEGATION
      EROFS: no control group can be made below /sys/fs/cgroup/GROUP: it is mounted read-only
        Run it where systemd delegates a group: systemd-run --user --scope -p Delegate=yes node …, or a service with [Service] Delegate=yes. In a container, cgroup2 must be mounted writable (podman does; docker run --privileged, or --cgroupns=private with a writable /sys/fs/cgroup).
      - /proc/self/cgroup: 0::/GROUP
      "
    `);
    expect(onV2(`tell(await said(runIsolated('/bin/true')))`, readonly)).toBe('ended with 0\n');
  });

  test('finds none mounted', () => {
    const none = { setup: 'give "$D"', mounts: 'umount -R /sys/fs/cgroup' };
    expect(onV2('tell(await said(run({ pids: 5 })))', none)).toMatchInlineSnapshot(`
      "CgroupError ERR_CLOISTER_CGROUP_UNSUPPORTED
      no control group hierarchy is mounted here, so pids cannot be limited
        mount -t cgroup2 none /sys/fs/cgroup (as root), or, in a container, have it mounted by the engine.
      "
    `);
    // A group without limits is asked for all the same.
    expect(onV2('tell(await said(run({})))', none)).toMatch(/^CgroupError ERR_CLOISTER_CGROUP_UNSUPPORTED\n/);
    expect(onV2(`tell(await said(runIsolated('/bin/true')))`, none)).toBe('ended with 0\n');
    expect(onV2('tell(await Cgroup.support())', none)).toMatchInlineSnapshot(`
      "{"mode":"v2","controllers":{},"why":"no control group hierarchy is mounted here","hint":"mount -t cgroup2 none /sys/fs/cgroup (as root)."}
      "
    `);
  });

  test('sees their group as the root of all: a container with a cgroup namespace', () => {
    const setup = `${enabled} give "$D"`;
    const mounts =
      'exec unshare --cgroup sh -ec "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/tmp \\"\\$0\\" --input-type=module --eval \\"\\$1\\"" "$0" "$1"';
    const script = `tell(await said(run({ hugetlb: { '2MB': 0 } }))); tell(where()); tell((await Cgroup.support()).root)`;
    expect(onV2(script, { setup, mounts })).toMatchInlineSnapshot(`
      "ended with 0
      /OWN.1
      /sys/fs/cgroup
      "
    `);
  });
});

testNeeding(['unprivileged', 'cgroup-v1'])('an ordinary user on cgroup v1 is told that root makes groups there', async () => {
  const error = await refusal(Cgroup.create());
  expect(`${error.code} ${error.message}`.replace(/uid \d+/, 'uid N')).toMatchInlineSnapshot(`
    "ERR_CLOISTER_CGROUP_DELEGATION EACCES: no control group can be made below /sys/fs/cgroup/blkio: uid N may not write to it
      Groups of cgroup v1 are made by root: run as root, or on a host with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1 on the kernel command line)."
  `);
});
