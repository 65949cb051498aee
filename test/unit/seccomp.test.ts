import { runIsolated, spawnIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { compilePolicy } from '../../lib/security/seccomp/compile-policy.js';
import { defaultPolicy } from '../../lib/security/seccomp/default-profile.js';
import { policyOf } from '../../lib/security/seccomp/oci-profile.js';
import { action, type Comparison, decide, type Operator, type Policy, type Rule } from '../../lib/security/seccomp/policy.js';
import { type Architecture, auditArch, syscallNumbers, x32Bit } from '../../lib/security/seccomp/syscalls.js';
import { Random } from '../helpers/random.js';

interface Call {
  readonly architecture: number;
  readonly number: number;
  readonly args: readonly bigint[];
}

/** A machine for the programs that seccomp takes: linux/filter.h. */
function run(program: Uint8Array, { architecture, number, args }: Call): number {
  const view = new DataView(program.buffer, program.byteOffset, program.byteLength);
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, number, true);
  data.setUint32(4, architecture, true);
  for (const [index, arg] of args.entries()) data.setBigUint64(16 + 8 * index, arg, true);
  let accumulator = 0;
  for (let at = 0; at < program.byteLength / 8; at++) {
    const [code, ifTrue, ifFalse, k] = [view.getUint16(at * 8, true), view.getUint8(at * 8 + 2), view.getUint8(at * 8 + 3), view.getUint32(at * 8 + 4, true)];
    const jump = (yes: boolean): void => {
      at += yes ? ifTrue : ifFalse;
    };
    if (code === 0x20) accumulator = data.getUint32(k, true);
    else if (code === 0x54) accumulator = (accumulator & k) >>> 0;
    else if (code === 0x05) at += k;
    else if (code === 0x15) jump(accumulator === k);
    else if (code === 0x25) jump(accumulator > k);
    else if (code === 0x35) jump(accumulator >= k);
    else if (code === 0x06) return k;
    else throw new Error(`instruction ${at} is 0x${code.toString(16)}`);
  }
  throw new Error('the program runs past its end');
}

const asked = (policy: Policy, architecture: Architecture, number: number, args: readonly bigint[]): [program: number, reference: number] => [
  run(compilePolicy(policy), { architecture: auditArch[architecture], number: architecture === 'x32' ? number + x32Bit : number, args }),
  decide(policy, architecture, number, args),
];
const zeros: readonly bigint[] = [0n, 0n, 0n, 0n, 0n, 0n];

describe('the numbers', () => {
  test('are the kernel’s', () => {
    const shown = (name: string): string =>
      ['x86_64', 'x32', 'x86', 'aarch64', 'riscv64'].map((of) => syscallNumbers(of as Architecture).get(name) ?? '-').join(' ');
    expect(['read', 'ioctl', 'execve', 'clone3', 'open', 'riscv_flush_icache', 'socketcall', 'mseal'].map((name) => `${name}: ${shown(name)}`)).toEqual([
      'read: 0 0 3 63 63',
      'ioctl: 16 514 54 29 29',
      'execve: 59 520 11 221 221',
      'clone3: 435 435 435 435 435',
      'open: 2 2 5 - -',
      'riscv_flush_icache: - - - - 259',
      'socketcall: - - 102 - -',
      'mseal: 462 462 462 462 462',
    ]);
  });

  test('no two calls have the same', () => {
    for (const of of ['x86_64', 'x32', 'x86', 'aarch64', 'riscv64'] as const) {
      const numbers = [...syscallNumbers(of).values()];
      expect(new Set(numbers).size).toBe(numbers.length);
    }
  });
});

describe('a program', () => {
  const operators: readonly Operator[] = ['==', '!=', '<', '<=', '>', '>=', '&'];
  const edges = [0n, 1n, 2n, 0x7fffffffn, 0x80000000n, 0xffffffffn, 0x100000000n, 0x100000001n, 0x7fffffffffffffffn, 0xffffffff00000000n, 0xffffffffffffffffn];

  test('compares 64 bits, at every edge', () => {
    for (const operator of operators) {
      for (const value of edges) {
        for (const mask of operator === '&' ? edges : [0n]) {
          const comparison: Comparison = operator === '&' ? { index: 3, operator, value, mask } : { index: 3, operator, value };
          const policy: Policy = {
            calls: new Map([['read', [{ when: [comparison], action: action.allow }]]]),
            otherwise: action.errno(1),
            unknown: 0,
            foreign: 0,
            architectures: ['x86_64'],
          };
          const program = compilePolicy(policy);
          for (const arg of edges) {
            const args = [9n, 9n, 9n, arg, 9n, 9n];
            expect(run(program, { architecture: auditArch.x86_64, number: 0, args }), `${arg} ${operator} ${value}, ${mask}`).toBe(
              decide(policy, 'x86_64', 0, args),
            );
          }
        }
      }
    }
  });

  test('says what the profile says: 60 made by chance, 300 calls each', () => {
    const random = new Random(20261128);
    const pick = <T>(list: readonly T[]): T => random.pick(list);
    const actions = [
      action.allow,
      action.errno(1),
      action.errno(4095),
      action.killProcess,
      action.killThread,
      action.trap,
      action.trace(7),
      action.log,
      action.notify,
    ];
    for (let round = 0; round < 60; round++) {
      const architectures = pick<readonly Architecture[]>([
        ['x86_64'],
        ['x86_64', 'x86'],
        ['x86_64', 'x32'],
        ['x86_64', 'x32', 'x86'],
        ['aarch64'],
        ['riscv64'],
      ]);
      const names = [...syscallNumbers(architectures[0] as Architecture).keys()];
      const rule = (): Rule => ({
        when: Array.from({ length: random.below(3) }, () => ({ index: random.below(6), operator: pick(operators), value: pick(edges), mask: pick(edges) })),
        action: pick(actions),
      });
      const calls = new Map(Array.from({ length: random.below(400) }, () => [pick(names), Array.from({ length: 1 + random.below(3) }, rule)]));
      const policy: Policy = { calls, otherwise: pick(actions), unknown: pick(actions), foreign: pick(actions), architectures };
      const program = compilePolicy(policy);
      const ruled = [...calls.keys()];
      for (let call = 0; call < 300; call++) {
        const architecture = pick<Architecture>(['x86_64', 'x32', 'x86', 'aarch64', 'riscv64']);
        const number = pick([random.below(600), syscallNumbers(architecture).get(ruled[random.below(ruled.length)] ?? '') ?? 999]);
        const args = Array.from({ length: 6 }, () => pick(edges));
        const got = run(program, { architecture: auditArch[architecture], number: architecture === 'x32' ? number + x32Bit : number, args });
        expect(got, `round ${round}: ${architecture} ${number} (${args})`).toBe(decide(policy, architecture, number, args));
      }
    }
  });

  test('is short: the default profile’s', () => {
    expect(compilePolicy(defaultPolicy(0n)).byteLength / 8).toBeLessThan(160);
    expect(compilePolicy(defaultPolicy(-1n & 0x1ffffffffffn)).byteLength / 8).toBeLessThan(160);
  });

  test('jumps as far as a large profile needs', () => {
    const names = [...syscallNumbers('x86_64').keys()];
    const when = (value: bigint): Comparison[] => [{ index: 0, operator: '>', value }];
    const calls = new Map(names.map((name, index) => [name, [{ when: when(BigInt(index)), action: action.errno(index) }]]));
    const policy: Policy = { calls, otherwise: action.allow, unknown: action.trap, foreign: action.killProcess, architectures: ['x86_64'] };
    const program = compilePolicy(policy);
    expect(program.byteLength / 8).toBeGreaterThan(1000);
    for (const [name, number] of syscallNumbers('x86_64')) {
      for (const arg of [0n, BigInt(names.indexOf(name)), BigInt(names.indexOf(name)) + 1n, 1n << 40n]) {
        const args = [arg, 0n, 0n, 0n, 0n, 0n];
        expect(run(program, { architecture: auditArch.x86_64, number, args })).toBe(decide(policy, 'x86_64', number, args));
      }
    }
  });
});

describe('the default profile', () => {
  const ask = (name: string, args: readonly bigint[] = zeros, capabilities = 0n): number => {
    const [program, reference] = asked(defaultPolicy(capabilities), 'x86_64', syscallNumbers('x86_64').get(name) ?? 9999, args);
    expect(program).toBe(reference);
    return program;
  };
  const [EPERM, ENOSYS, EAFNOSUPPORT] = [action.errno(1), action.errno(38), action.errno(97)];

  test('looks at what the kernel looks at: the lower halves', () => {
    const above = 1n << 32n;
    expect(ask('socket', [40n, 0n, 0n, 0n, 0n, 0n])).toBe(EAFNOSUPPORT);
    expect(ask('socket', [40n + above, 0n, 0n, 0n, 0n, 0n])).toBe(EAFNOSUPPORT);
    expect(ask('socket', [2n, 0n, 0n, 0n, 0n, 0n])).toBe(action.allow);
    expect(ask('ioctl', [0n, 0x5412n, 0n, 0n, 0n, 0n])).toBe(EPERM);
    expect(ask('ioctl', [0n, 0x5412n + above, 0n, 0n, 0n, 0n])).toBe(EPERM);
    expect(ask('ioctl', [0n, 0x5413n, 0n, 0n, 0n, 0n])).toBe(action.allow);
    expect(ask('personality', [0xffffffffn, 0n, 0n, 0n, 0n, 0n])).toBe(action.allow);
    expect(ask('personality', [0x40000n, 0n, 0n, 0n, 0n, 0n])).toBe(EPERM);
  });

  test('new namespaces come with CAP_SYS_ADMIN, threads without', () => {
    const thread = [0x3d0f00n, 0n, 0n, 0n, 0n, 0n];
    const user = [0x10000000n, 0n, 0n, 0n, 0n, 0n];
    const admin = 1n << 21n;
    expect([ask('clone', thread), ask('clone', user), ask('clone3'), ask('unshare')]).toEqual([action.allow, EPERM, ENOSYS, EPERM]);
    expect([ask('clone', user, admin), ask('clone3', zeros, admin), ask('unshare', zeros, admin)]).toEqual([action.allow, action.allow, action.allow]);
  });

  test('refuses what is not of its own architecture', () => {
    const policy = defaultPolicy(0n);
    expect(asked(policy, 'x32', 0, zeros)).toEqual([ENOSYS, ENOSYS]);
    expect(asked(policy, 'x86', 3, zeros)).toEqual([ENOSYS, ENOSYS]);
    expect(asked(policy, 'x86_64', 5000, zeros)).toEqual([ENOSYS, ENOSYS]);
  });
});

describe('a profile as of OCI', () => {
  const refused = (seccomp: unknown): string => {
    try {
      spawnIsolated('true', { seccomp } as never);
    } catch (error) {
      expect(error).toBeInstanceOf(TypeError);
      return (error as Error).message;
    }
    throw new Error('it was not refused');
  };
  const base = { defaultAction: 'SCMP_ACT_ALLOW' };
  const entry = (more: object) => ({ ...base, syscalls: [{ names: ['mount'], action: 'SCMP_ACT_ERRNO', ...more }] });

  test('what is wrong in it is named', () => {
    expect(
      [
        'strict',
        7,
        {},
        { defaultAction: 'ALLOW' },
        { ...base, defaultErrnoRet: 1 },
        { defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: 4096 },
        { defaultAction: 'SCMP_ACT_NOTIFY' },
        { ...base, listenerPath: '/run/agent' },
        { ...base, architectures: ['x86_64'] },
        { ...base, flags: ['SECCOMP_FILTER_FLAG_NEW_LISTENER'] },
        { ...base, syscalls: [7] },
        entry({ names: [] }),
        entry({ names: ['muont'] }),
        entry({ action: 'SCMP_ACT_NOTIFY' }),
        entry({ args: [{ index: 6, value: 0, op: 'SCMP_CMP_EQ' }] }),
        entry({ args: [{ index: 0, value: -1, op: 'SCMP_CMP_EQ' }] }),
        entry({ args: [{ index: 0, value: 2 ** 60, op: 'SCMP_CMP_EQ' }] }),
        entry({ args: [{ index: 0, value: 0, op: '==' }] }),
        { ...base, syscalls: [...entry({}).syscalls, { names: ['mount'], action: 'SCMP_ACT_ALLOW' }] },
        { defaultAction: 'SCMP_ACT_ERRNO' },
        { ...base, syscalls: [{ names: ['openat'], action: 'SCMP_ACT_KILL' }] },
      ].map(refused),
    ).toMatchInlineSnapshot(`
      [
        "option 'seccomp' takes 'default', 'unconfined', a profile, or { profile, notify }; got "strict"",
        "option 'seccomp' takes 'default', 'unconfined', a profile, or { profile, notify }; got 7",
        "option 'seccomp.defaultAction' takes an action of the OCI specification, such as SCMP_ACT_ALLOW, SCMP_ACT_ERRNO or SCMP_ACT_KILL_PROCESS; got undefined",
        "option 'seccomp.defaultAction' takes an action of the OCI specification, such as SCMP_ACT_ALLOW, SCMP_ACT_ERRNO or SCMP_ACT_KILL_PROCESS; got "ALLOW"",
        "option 'seccomp.defaultErrnoRet' takes nothing unless the action is SCMP_ACT_ERRNO or SCMP_ACT_TRACE; got 1",
        "option 'seccomp.defaultErrnoRet' takes a whole number from 0 to 4095; got 4096",
        "option 'seccomp.defaultAction' takes another action: which calls JavaScript decides is said in seccomp.notify; got "SCMP_ACT_NOTIFY"",
        "option 'seccomp.listenerPath' takes nothing: there is no such option; got "/run/agent"",
        "option 'seccomp.architectures[0]' takes a name such as SCMP_ARCH_X86_64; got "x86_64"",
        "option 'seccomp.flags[0]' takes one of SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_SPEC_ALLOW; got "SECCOMP_FILTER_FLAG_NEW_LISTENER"",
        "option 'seccomp.syscalls[0]' takes an object with names and an action; got 7",
        "option 'seccomp.syscalls[0].names' takes at least one name; got an array of 0",
        "option 'seccomp.syscalls[0].names[0]' takes the name of a system call that this version knows, as it cannot deny another; got "muont"",
        "option 'seccomp.syscalls[0].names[0]' takes a name that seccomp.notify has too, where the action is SCMP_ACT_NOTIFY; got "mount"",
        "option 'seccomp.syscalls[0].args[0].index' takes a whole number from 0 to 5; got 6",
        "option 'seccomp.syscalls[0].args[0].value' takes a whole number of 64 bits, not negative (a bigint above 2^53); got -1",
        "option 'seccomp.syscalls[0].args[0].value' takes a whole number of 64 bits, not negative (a bigint above 2^53); got 1152921504606847000",
        "option 'seccomp.syscalls[0].args[0].op' takes one of SCMP_CMP_NE, SCMP_CMP_LT, SCMP_CMP_LE, SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_GT, SCMP_CMP_MASKED_EQ; got "=="",
        "option 'seccomp.syscalls[1].names[0]' takes a name that no entry before has decided already, whatever its arguments; got "mount"",
        "option 'seccomp' takes a profile that allows execve: without it no program can be started; got "execve"",
        "option 'seccomp' takes a profile that refuses openat by an errno at most: starting a program makes that call; got "openat"",
      ]
    `);
  });

  test('what cannot be denied is no name; what is let through may be of other machines', () => {
    const names = ['read', 's390_pci_mmio_read'];
    expect(policyOf({ defaultAction: 'SCMP_ACT_ERRNO', syscalls: [{ names, action: 'SCMP_ACT_ALLOW' }] }, 'seccomp').policy.calls.size).toBe(1);
  });

  test('is rejected with, where a promise is returned', async () => {
    await expect(runIsolated('true', { seccomp: {} as never })).rejects.toThrow(TypeError);
  });
});
