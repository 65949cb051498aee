/** What each driver is told, and what it leaves in a writable layer. */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { OverlayRootfs } from 'cloister';
import { beforeAll, describe, expect, test } from 'vitest';
import { native } from '../../dist/native.js';
import { PlanBuilder } from '../../dist/plan/builder.js';
import { cwd, type Slot } from '../../dist/plan/steps.js';
import { aufs, type BranchChange, changeBranch } from '../../dist/rootfs/drivers/aufs.js';
import { addition, positionOf, removal } from '../../dist/rootfs/drivers/branches.js';
import type { Driver } from '../../dist/rootfs/drivers/driver.js';
import { fuseOverlayfs } from '../../dist/rootfs/drivers/fuse-overlayfs.js';
import { overlay } from '../../dist/rootfs/drivers/overlay.js';
import type { RootSettings } from '../../dist/rootfs/make-root.js';
import { tryMounts } from '../../dist/rootfs/mount-abilities.js';
import { SharedRoot } from '../../dist/rootfs/shared-root.js';
import { Stage } from '../../dist/rootfs/stage.js';
import { run as listChanges } from '../../dist/tree/list-changes.js';
import { run as writeDiff } from '../../dist/tree/write-diff.js';
import { saying } from '../integration/refusals.js';
import { plant, temporary } from '../integration/trees.js';

/** The calls of a plan; descriptors by their names, numbers that are looked up by name as N. */
function callsOf(make: (plan: PlanBuilder, stage: Stage) => void, driver: Driver): string[] {
  const plan = new PlanBuilder().in('parent');
  make(plan, new Stage(plan, driver));
  for (const fd of plan.slots()) if (fd >= 0) native().close(fd);
  const text = (argument: unknown): string =>
    argument !== null && typeof argument === 'object' && 'name' in argument ? `<${(argument as Slot).name}>` : String(argument);
  return plan.all.map(({ kind, args }) => `${kind}(${args.map(text).join(', ')})`.replace(/(\/fd\/|dup3\(<[^>]+>, |fd, )\d+/g, '$1N'));
}

function union(plan: PlanBuilder, isKept: boolean) {
  const [upper, work] = [plan.slot('upper'), plan.slot('work')];
  const place = { from: cwd, path: '/space', upper: 'upper0', work: 'work0' };
  return {
    lowers: [plan.slot('middle'), plan.slot('base')],
    userxattr: false,
    volatile: false,
    writable: { upper, work, place, isKept, isPlaceless: !isKept },
  };
}

describe('aufs(5)', () => {
  test('br: the writable layer first, then those below it, whose whiteouts count', () => {
    const calls = callsOf((plan, stage) => void aufs.mount(plan, stage, union(plan, false)), aufs);
    expect(calls).toMatchInlineSnapshot(`
      [
        "fsopen(aufs, 1)",
        "dup3(<work>, N, 524288)",
        "fsconfig(<aufs context>, 1, xino, /proc/self/fd/N/xino, 0)",
        "dup3(<upper>, N, 524288)",
        "fsconfig(<aufs context>, 1, br, /proc/self/fd/N=rw, 0)",
        "dup3(<middle>, N, 524288)",
        "fsconfig(<aufs context>, 1, br, /proc/self/fd/N=ro+wh, 0)",
        "dup3(<base>, N, 524288)",
        "fsconfig(<aufs context>, 1, br, /proc/self/fd/N=ro+wh, 0)",
        "fsconfig(<aufs context>, 6, null, null, 0)",
        "fsmount(<aufs context>, 1, 4)",
        "close(<aufs context>)",
      ]
    `);
  });

  test("a directory of the caller's gets no table of inodes beside it; a layer may be written to", () => {
    const calls = callsOf((plan, stage) => {
      const asked = union(plan, true);
      aufs.mount(plan, stage, { ...asked, writableLowers: new Set([asked.lowers[0] as Slot]) });
    }, aufs);
    expect(calls.filter((call) => call.includes('fsconfig'))).toMatchInlineSnapshot(`
      [
        "fsconfig(<aufs context>, 1, br, /proc/self/fd/N=rw, 0)",
        "fsconfig(<aufs context>, 1, br, /proc/self/fd/N=rw, 0)",
        "fsconfig(<aufs context>, 1, br, /proc/self/fd/N=ro+wh, 0)",
        "fsconfig(<aufs context>, 6, null, null, 0)",
      ]
    `);
  });

  test('without a writable layer nothing is written to', () => {
    const calls = callsOf((plan, stage) => {
      const asked = union(plan, false);
      aufs.mount(plan, stage, { ...asked, writable: undefined, writableLowers: new Set(asked.lowers) });
    }, aufs);
    expect(calls.filter((call) => call.includes('br,'))).toMatchInlineSnapshot(`
      [
        "fsconfig(<aufs context>, 1, br, /proc/self/fd/N=ro+wh, 0)",
        "fsconfig(<aufs context>, 1, br, /proc/self/fd/N=ro+wh, 0)",
      ]
    `);
  });

  test.each<[string, (directory: Slot) => BranchChange, string]>([
    ['add', (directory) => ({ what: 'add', directory, index: 1, writable: false }), 'add, 1:/proc/self/fd/N=ro+wh'],
    ['add a writable one', (directory) => ({ what: 'add', directory, index: 2, writable: true }), 'add, 2:/proc/self/fd/N=rw'],
    ['del', (directory) => ({ what: 'del', directory }), 'del, /proc/self/fd/N'],
    ['mod', (directory) => ({ what: 'mod', directory, writable: true }), 'mod, /proc/self/fd/N=rw'],
  ])('%s, at remount', (_, change, option) => {
    const calls = callsOf((plan, stage) => changeBranch(plan, stage, plan.slot('root'), change(plan.slot('branch'))), aufs);
    expect(calls).toEqual([
      'fspick(<root>, , 9)',
      'dup3(<branch>, N, 524288)',
      `fsconfig(<reconfiguration>, 1, ${option}, 0)`,
      'fsconfig(<reconfiguration>, 7, null, null, 0)',
      'close(<reconfiguration>)',
    ]);
  });

  test('where a branch goes among the layers', () => {
    const settings = { layers: ['/base', '/middle', '/top'], frozen: [] };
    expect([undefined, 1, 2, 3, 4].map((index) => positionOf(index, settings))).toEqual([3, 3, 2, 1, 0]);
    for (const index of [0, 5, 1.5, -1]) expect(() => positionOf(index, settings)).toThrow("option 'index' takes a whole number from 1 to 4");
    expect(() => positionOf(1, { layers: undefined, frozen: [] })).toThrow("the host's tree is several mounts");
  });

  test('two branches at once are two branches', async () => {
    const settings: RootSettings = {
      driver: aufs,
      layers: ['/base'],
      stores: [],
      hold: undefined,
      frozen: [],
      hide: [],
      upper: 'tmpfs',
      ownUpper: false,
      size: 1,
      volatile: false,
      idMap: 'auto',
    };
    const root = await SharedRoot.begin(settings, false, false);
    const changes = [
      root.changeBranches((now) => addition(now, '/one', {})),
      root.changeBranches((now) => removal(now, '/nobody has it')),
      root.changeBranches((now) => addition(now, '/two', { writable: true, index: 1 })),
    ];
    expect((await Promise.allSettled(changes)).map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(root.settings).toMatchObject({ layers: ['/base', '/one', '/two'], writableLayers: ['/two'] });
    await root.dispose();
  });

  test('where there is none, why', async () => {
    if ((await aufs.refusal()) === undefined) return;
    const error = await saying(OverlayRootfs.create({ layers: ['/usr'], driver: 'aufs' }));
    if (process.geteuid?.() === 0) {
      expect(error).toBe(
        "ENODEV: use the driver 'aufs' (fsopen): this kernel has no aufs: it is not part of Linux, but a patch to it\n" +
          "  Use driver 'overlay', or a kernel that was built with aufs (its module is loaded when it is first used).",
      );
    } else {
      expect(error).toBe(
        "EPERM: use the driver 'aufs' (fsopen): aufs can only be mounted by root of the host: not in a user namespace (aufs_fs_type has no FS_USERNS_MOUNT)\n" +
          "  Use driver 'overlay' or 'fuse-overlayfs', or run as root.",
      );
    }
  });
});

describe('a writable layer that is marked by names', () => {
  const lines = (directory: string, upper: Record<string, string>, base: Record<string, string>, byName = true): string[] => {
    plant(
      directory,
      Object.fromEntries([...Object.entries(upper).map(([k, v]) => [`upper/${k}`, v]), ...Object.entries(base).map(([k, v]) => [`base/${k}`, v])]),
    );
    const fds = ['upper', 'base'].map((name) => native().openFile(join(directory, name)));
    const output = openSync(join(directory, 'told'), 'w+');
    try {
      const part = { target: '', base: 0, upper: '', below: 1, merged: undefined, root: undefined, byName };
      const prefix = process.geteuid?.() === 0 ? 'trusted.overlay.' : 'user.overlay.';
      listChanges({ prefix, parts: [part] }, { result: -1, input: undefined, output, lent: fds });
      return readFileSync(join(directory, 'told'), 'utf8')
        .split('\n')
        .filter(Boolean)
        .map((line) => (JSON.parse(line) as string[]).join(' '));
    } finally {
      closeSync(output);
      for (const fd of fds) native().close(fd);
    }
  };

  test('whiteouts, opaque directories, and what aufs keeps at the top', () => {
    const upper = {
      '.wh..wh.aufs': '',
      '.wh..wh.plnk/123.456': 'a pseudo-link',
      '.wh..wh.orph/': '',
      '.wh.gone': '',
      '.wh.never-was': '',
      'new': 'n',
      changed: 'other',
      'opaque/.wh..wh..opq': '',
      'opaque/kept': 'k',
      'merged/.wh.inside': '',
      'merged/added': 'a',
    };
    const base = {
      gone: 'g',
      changed: 'c',
      same: 's',
      'opaque/hidden': 'h',
      'opaque/deep/er': 'h',
      'merged/inside': 'i',
      'merged/stays': 's',
    };
    expect(lines(temporary(), upper, base)).toMatchInlineSnapshot(`
      [
        "deleted file gone",
        "modified file changed",
        "deleted file merged/inside",
        "added file merged/added",
        "added file new",
        "deleted directory opaque/deep",
        "deleted file opaque/hidden",
        "added file opaque/kept",
      ]
    `);
  });

  test('to overlayfs such names are names', () => {
    expect(lines(temporary(), { '.wh.gone': '' }, { gone: 'g' }, false)).toEqual(['added file .wh.gone']);
  });

  test('as a layer: the whiteouts of OCI, none of its own files', () => {
    const directory = temporary({ 'upper/.wh.gone': '', 'upper/.wh..wh.plnk/': '', 'upper/new': 'n', 'base/gone': 'g' });
    const fds = ['upper', 'base'].map((name) => native().openFile(join(directory, name)));
    const output = openSync(join(directory, 'tar'), 'w+');
    const part = { target: '', base: 0, upper: '', below: 1, merged: undefined, root: undefined, byName: true };
    writeDiff({ prefix: 'user.overlay.', parts: [part], map: undefined, whiteouts: 'names' }, { result: -1, input: undefined, output, lent: fds });
    closeSync(output);
    for (const fd of fds) native().close(fd);
    const tar = readFileSync(join(directory, 'tar'), 'latin1');
    expect([...tar.matchAll(/(?:^|\0)((?:\.wh\.|new|\.\/)[^\0]*)\0/g)].map(([, name]) => name)).toEqual(['./', '.wh.gone', 'new']);
  });
});

describe('overlayfs', () => {
  beforeAll(() => tryMounts());

  test('what a build of the kernel would decide is decided here', () => {
    const options = (isKept: boolean, userxattr: boolean): string[] =>
      callsOf((plan, stage) => void overlay.mount(plan, stage, { ...union(plan, isKept), userxattr }), overlay)
        .filter((call) => /^fsconfig\(<overlay context>, [01], (?!lowerdir|upperdir|workdir)/.test(call))
        .map((call) => call.replace(/^fsconfig\(<overlay context>, [01], (\w+), (\w+), 0\)$/, '$1=$2'));
    expect({ own: options(false, false), kept: options(true, false), user: options(false, true) }).toMatchInlineSnapshot(`
      {
        "kept": [
          "redirect_dir=on",
          "metacopy=off",
          "index=off",
          "xino=off",
        ],
        "own": [
          "redirect_dir=on",
          "metacopy=on",
          "index=off",
          "xino=off",
        ],
        "user": [
          "userxattr=null",
          "index=off",
          "xino=off",
        ],
      }
    `);
  });
});

describe('fuse-overlayfs', () => {
  beforeAll(() => tryMounts());

  test('the mount is made by us, and the program gets a number and mounts', () => {
    const calls = callsOf((plan, stage) => {
      fuseOverlayfs.mount(plan, stage, union(plan, true));
      expect(stage.servers).toMatchObject([{ writable: { upper: 'upper0', work: 'work0' }, volatile: false }]);
    }, fuseOverlayfs);
    expect(calls).toMatchInlineSnapshot(`
      [
        "openat(<AT_FDCWD>, /dev/fuse, 524290, 0)",
        "dup3(<fuse device>, N, 524288)",
        "close(<fuse device>)",
        "fsopen(fuse, 1)",
        "fsconfig(<fuse context>, 1, source, fuse-overlayfs, 0)",
        "fsconfig(<fuse context>, 1, subtype, fuse-overlayfs, 0)",
        "fsconfig(<fuse context>, 1, fd, N, 0)",
        "fsconfig(<fuse context>, 1, rootmode, 40000, 0)",
        "fsconfig(<fuse context>, 1, user_id, 0, 0)",
        "fsconfig(<fuse context>, 1, group_id, 0, 0)",
        "fsconfig(<fuse context>, 0, default_permissions, null, 0)",
        "fsconfig(<fuse context>, 0, allow_other, null, 0)",
        "fsconfig(<fuse context>, 6, null, null, 0)",
        "fsmount(<fuse context>, 1, 4)",
        "close(<fuse context>)",
        "open_tree(<AT_FDCWD>, /space, 524289)",
        "mount_setattr(<copy of /space>, , 4096, 0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,4,0,0,0,0,0,0,0,0,0,0,0,0,0)",
      ]
    `);
  });

  test("a writable layer's name with ':'", () => {
    expect(() =>
      callsOf((plan, stage) => {
        const asked = union(plan, true);
        fuseOverlayfs.mount(plan, stage, { ...asked, writable: { ...asked.writable, place: { ...asked.writable.place, upper: 'a:b' } } });
      }, fuseOverlayfs),
    ).toThrow("fuse-overlayfs cannot have a writable layer with ':' in its name");
  });

  test('a driver of another name', async () => {
    await expect(OverlayRootfs.create({ layers: ['/usr'], driver: 'unionfs' as 'aufs' })).rejects.toThrow(
      "option 'driver' takes 'auto', 'overlay', 'aufs' or 'fuse-overlayfs'; got \"unionfs\"",
    );
  });
});
