// What the kernel is told for each ABI, and what is refused where it knows less. No kernel is asked.
import { describe, expect, test } from 'vitest';
import { adviceFor } from '../../lib/host/hints.js';
import { fileRights } from '../../lib/security/landlock/rights.js';
import { rulesetFor } from '../../lib/security/landlock/ruleset.js';
import type { LandlockRules } from '../../lib/security/types.js';
import { settingsOf } from '../../lib/spawn/settings.js';

const names = (mask: number): string =>
  fileRights
    .filter(({ bit }) => mask & bit)
    .map(({ name }) => name)
    .join(' ');
const told = (rules: LandlockRules, abi: number) => {
  const { handledFiles, paths, missing } = rulesetFor(rules, abi);
  return { handled: names(handledFiles), paths: Object.fromEntries(paths.map(({ path, access }) => [path, names(access)])), missing };
};
const refusal = (rules: unknown): string => {
  try {
    settingsOf('program', [], { landlock: rules as LandlockRules });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return error.message;
  }
  return 'accepted';
};

test('what the option takes', () => {
  const bad = [
    1,
    null,
    [],
    {},
    { scope: [] },
    { reads: [] },
    { read: '/usr' },
    { read: ['usr'] },
    { write: ['/a\0'] },
    { connectTcp: [65536] },
    { bindTcp: ['80'] },
  ];
  expect([...bad, { scope: ['net'] }].map(refusal)).toMatchInlineSnapshot(`
    [
      "option 'landlock' takes an object; got 1",
      "option 'landlock' takes an object; got null",
      "option 'landlock' takes an object; got an array of 0",
      "option 'landlock' takes at least one list: read, write, execute, connectTcp, bindTcp, or a scope; got an instance of Object",
      "option 'landlock' takes at least one list: read, write, execute, connectTcp, bindTcp, or a scope; got an instance of Object",
      "option 'landlock.reads' takes nothing: there is no such option; got an array of 0",
      "option 'landlock.read' takes an array; got "/usr"",
      "option 'landlock.read[0]' takes an absolute path, such as '/work'; got "usr"",
      "option 'landlock.write[0]' takes an absolute path, such as '/work'; got "/a\\u0000"",
      "option 'landlock.connectTcp[0]' takes a whole number from 0 to 65535; got 65536",
      "option 'landlock.bindTcp[0]' takes a whole number from 0 to 65535; got "80"",
      "option 'landlock.scope[0]' takes 'signal' or 'abstract-unix-socket'; got "net"",
    ]
  `);
  expect([{ read: [] }, { bindTcp: [0] }, { scope: ['signal'] }].map(refusal)).toEqual(['accepted', 'accepted', 'accepted']);
});

describe('by ABI', () => {
  const all: LandlockRules = { read: ['/r', '/rw'], write: ['/w', '/rw'], execute: ['/x'] };

  test('all kinds', () => {
    expect(Object.fromEntries([1, 2, 3, 5, 7, 12].map((abi) => [abi, told(all, abi)]))).toMatchInlineSnapshot(`
      {
        "1": {
          "handled": "execute write-file read-file read-dir remove-dir remove-file make-char make-dir make-reg make-sock make-fifo make-block make-sym",
          "missing": [
            "refer",
            "truncate",
            "ioctl-dev",
          ],
          "paths": {
            "/r": "read-file read-dir",
            "/rw": "write-file read-file read-dir remove-dir remove-file make-dir make-reg make-sock make-fifo make-sym",
            "/w": "write-file remove-dir remove-file make-dir make-reg make-sock make-fifo make-sym",
            "/x": "execute read-file",
          },
        },
        "12": {
          "handled": "execute write-file read-file read-dir remove-dir remove-file make-char make-dir make-reg make-sock make-fifo make-block make-sym refer truncate ioctl-dev",
          "missing": [],
          "paths": {
            "/r": "read-file read-dir",
            "/rw": "write-file read-file read-dir remove-dir remove-file make-dir make-reg make-sock make-fifo make-sym refer truncate ioctl-dev",
            "/w": "write-file remove-dir remove-file make-dir make-reg make-sock make-fifo make-sym refer truncate ioctl-dev",
            "/x": "execute read-file",
          },
        },
        "2": {
          "handled": "execute write-file read-file read-dir remove-dir remove-file make-char make-dir make-reg make-sock make-fifo make-block make-sym refer",
          "missing": [
            "truncate",
            "ioctl-dev",
          ],
          "paths": {
            "/r": "read-file read-dir",
            "/rw": "write-file read-file read-dir remove-dir remove-file make-dir make-reg make-sock make-fifo make-sym refer",
            "/w": "write-file remove-dir remove-file make-dir make-reg make-sock make-fifo make-sym refer",
            "/x": "execute read-file",
          },
        },
        "3": {
          "handled": "execute write-file read-file read-dir remove-dir remove-file make-char make-dir make-reg make-sock make-fifo make-block make-sym refer truncate",
          "missing": [
            "ioctl-dev",
          ],
          "paths": {
            "/r": "read-file read-dir",
            "/rw": "write-file read-file read-dir remove-dir remove-file make-dir make-reg make-sock make-fifo make-sym refer truncate",
            "/w": "write-file remove-dir remove-file make-dir make-reg make-sock make-fifo make-sym refer truncate",
            "/x": "execute read-file",
          },
        },
        "5": {
          "handled": "execute write-file read-file read-dir remove-dir remove-file make-char make-dir make-reg make-sock make-fifo make-block make-sym refer truncate ioctl-dev",
          "missing": [],
          "paths": {
            "/r": "read-file read-dir",
            "/rw": "write-file read-file read-dir remove-dir remove-file make-dir make-reg make-sock make-fifo make-sym refer truncate ioctl-dev",
            "/w": "write-file remove-dir remove-file make-dir make-reg make-sock make-fifo make-sym refer truncate ioctl-dev",
            "/x": "execute read-file",
          },
        },
        "7": {
          "handled": "execute write-file read-file read-dir remove-dir remove-file make-char make-dir make-reg make-sock make-fifo make-block make-sym refer truncate ioctl-dev",
          "missing": [],
          "paths": {
            "/r": "read-file read-dir",
            "/rw": "write-file read-file read-dir remove-dir remove-file make-dir make-reg make-sock make-fifo make-sym refer truncate ioctl-dev",
            "/w": "write-file remove-dir remove-file make-dir make-reg make-sock make-fifo make-sym refer truncate ioctl-dev",
            "/x": "execute read-file",
          },
        },
      }
    `);
  });

  test('one kind alone leaves the others, and moving between directories, as they are', () => {
    expect(told({ read: ['/r'] }, 7)).toMatchInlineSnapshot(`
      {
        "handled": "read-file read-dir refer",
        "missing": [],
        "paths": {
          "/": "refer",
          "/r": "read-file read-dir",
        },
      }
    `);
    expect(told({ execute: ['/x'] }, 7)).toMatchInlineSnapshot(`
      {
        "handled": "execute refer",
        "missing": [],
        "paths": {
          "/": "refer",
          "/x": "execute",
        },
      }
    `);
    expect(told({ execute: ['/x'] }, 1).missing).toEqual(['refer']);
    expect(told({ write: [] }, 7).paths).toEqual({});
  });

  test('ports and scopes', () => {
    const rules: LandlockRules = { connectTcp: [80, 443], bindTcp: [80], scope: ['signal', 'abstract-unix-socket'] };
    const { handledPorts, scoped, ports, handledFiles } = rulesetFor(rules, 6);
    expect({ handledPorts, scoped, handledFiles, ports }).toEqual({
      ...{ handledPorts: 3, scoped: 3, handledFiles: 0 },
      ports: [
        { port: 80, access: 3 },
        { port: 443, access: 2 },
      ],
    });
  });
});

describe('what this kernel lacks', () => {
  const saying = (rules: LandlockRules, abi: number): string => {
    try {
      rulesetFor(rules, abi);
    } catch (error) {
      return (error as Error).message;
    }
    return 'accepted';
  };

  test('is refused, and told', () => {
    expect([
      saying({ connectTcp: [] }, 3),
      saying({ scope: ['signal'], bindTcp: [], connectTcp: [] }, 3),
      saying({ scope: ['signal'] }, 5),
      saying({ read: [] }, -38),
      saying({ read: [] }, -95),
    ]).toMatchInlineSnapshot(`
      [
        "restrict by Landlock: the Landlock of this kernel (ABI 3) cannot restrict connectTcp
        That came with ABI 4, Linux 6.7. Leave it out, or let fallback: 'landlock' do what can be done; the receipt then names what is missing.",
        "restrict by Landlock: the Landlock of this kernel (ABI 3) cannot restrict bindTcp, connectTcp, scope 'signal'
        That came with ABI 6, Linux 6.12. Leave it out, or let fallback: 'landlock' do what can be done; the receipt then names what is missing.",
        "restrict by Landlock: the Landlock of this kernel (ABI 5) cannot restrict scope 'signal'
        That came with ABI 6, Linux 6.12. Leave it out, or let fallback: 'landlock' do what can be done; the receipt then names what is missing.",
        "ENOSYS: restrict by Landlock (landlock_create_ruleset): this kernel has no Landlock, or a system call filter around this process hides it
        Landlock came with Linux 5.13, and needs CONFIG_SECURITY_LANDLOCK.",
        "ENOTSUP: restrict by Landlock (landlock_create_ruleset): this kernel has Landlock, but was started without it
        Add \`landlock\` to the list of the boot parameter lsm= (that of CONFIG_LSM is in use, or one without it).",
      ]
    `);
  });

  test('or done as far as it can be, and told', () => {
    const { missing, handledPorts, scoped } = rulesetFor({ write: [], scope: ['signal'], bindTcp: [] }, 2, { bestEffort: true });
    expect({ missing, handledPorts, scoped }).toEqual({ missing: ['truncate', 'ioctl-dev', 'bindTcp', "scope 'signal'"], handledPorts: 0, scoped: 0 });
  });
});

test('why a step was refused', () => {
  const what = (step: string, syscall: string, errno: number, path?: string): string | undefined =>
    adviceFor({ step, syscall, errno, path, cloneFlags: 0 }, () => undefined)?.what;
  expect([
    what('restrict by Landlock', 'landlock_restrict_self', 1),
    what('restrict by Landlock', 'landlock_restrict_self', 7),
    what('allow by Landlock', 'openat2', 13, '/x'),
    what('allow by Landlock', 'openat2', 20, '/x'),
    what('allow by Landlock', 'landlock_add_rule', 22, '/x'),
    what('share no core', 'prctl', 22),
    ...[1, 6, 19].map((errno) => what('restrict speculation', 'prctl', errno, 'store-bypass')),
    what('restrict speculation', 'prctl', 1, 'l1d-flush'),
  ]).toMatchInlineSnapshot(`
    [
      "who may gain privileges by executing a program must have CAP_SYS_ADMIN to restrict itself",
      "16 layers of Landlock are on this process already, and it takes no more",
      "root inside may not search the way to /x",
      "the way to /x inside goes through a file",
      undefined,
      "this kernel has no core scheduling",
      "the control of store-bypass is switched off for all processes of this machine",
      "the control of store-bypass is switched off for all processes of this machine",
      "this kernel or processor has no control of store-bypass",
      "this machine does not flush the L1 data cache for single processes",
    ]
  `);
});
