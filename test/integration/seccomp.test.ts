// Filters of system calls, from within: what is answered, and what the receipt says.
import { runIsolated, type SeccompProfile, type SpawnOptions } from 'cloister';
import { describe, expect, test } from 'vitest';
import { defaultPolicy } from '../../lib/security/seccomp/default-profile.js';
import { policyOf } from '../../lib/security/seccomp/oci-profile.js';
import { decide, errnoOf, isErrno, type Policy } from '../../lib/security/seccomp/policy.js';
import { type Architecture, nativeArchitecture, syscallNames, syscallNumbers, x32Bit } from '../../lib/security/seccomp/syscalls.js';
import { ask, askFully, insideFixture, withFixtures } from '../helpers/probe.js';

const last = 1024;
const numbers = Array.from({ length: last }, (_, number) => number);

/** What the program must have been told, by the rules that it was made of. */
const expected = (policy: Policy, args: readonly bigint[] = [], architecture: Architecture = nativeArchitecture): number[] =>
  numbers.map((number) => {
    const answer = decide(policy, architecture, number, args);
    return isErrno(answer) ? errnoOf(answer) : 0;
  });

/** Made by the kernel's own trampolines; since 6.14 no filter is asked about them (seccomp_uprobe_exception). */
const exempt = new Set(['uretprobe', 'uprobe'].map((name) => syscallNumbers(nativeArchitecture).get(name)));

/** The differences, by name. */
const differences = (got: readonly number[], wanted: readonly number[]): string[] =>
  numbers.flatMap((number) =>
    got[number] === wanted[number] || exempt.has(number)
      ? []
      : [`${syscallNames(nativeArchitecture).get(number) ?? number}: ${got[number]}, not ${wanted[number]}`],
  );

const admin: SpawnOptions = { capabilities: ['CAP_SYS_ADMIN', 'CAP_NET_RAW', 'CAP_SYS_PTRACE'] };

describe('each of 1,024 numbers, tried from within', () => {
  for (const [name, options, capabilities] of [
    ['with no capability', {}, 0n],
    ['with some', admin, (1n << 21n) | (1n << 13n) | (1n << 19n)],
  ] as const) {
    test(`is answered as the default profile says, ${name}`, async () => {
      const policy = defaultPolicy(capabilities);
      const variants = [[], [1], [40], [0x10000000], [0, 0x5412], [0, 0x541c], [8]];
      const answers = await Promise.all(variants.map(async (args) => (await ask([['filter-answers', 0, last, ...args]], options))[0].answers));
      for (const [index, got] of answers.entries()) expect(differences(got, expected(policy, variants[index]?.map(BigInt)))).toEqual([]);
      const [plain] = answers as [readonly number[]];
      // The table itself would not notice if all of it were wrong.
      const told = (call: string): number | undefined => plain[syscallNumbers(nativeArchitecture).get(call) ?? -1];
      expect([told('read'), told('keyctl'), told('init_module'), told('io_uring_setup'), told('perf_event_open')]).toEqual([
        ...[0, 1, 1, 1, name === 'with some' ? 0 : 1],
      ]);
    });
  }

  test.runIf(process.arch === 'x64')('is no call by the numbers of x32', async () => {
    const [x32] = await ask([['filter-answers', x32Bit, x32Bit + last]]);
    expect(new Set(x32.answers)).toEqual(new Set([38]));
    const [open] = await ask([['filter-answers', x32Bit, x32Bit + last]], { seccomp: 'unconfined' });
    expect(new Set(open.answers)).toEqual(new Set([0]));
  });

  test('is answered as a profile of OCI says', async () => {
    const profile: SeccompProfile = {
      defaultAction: 'SCMP_ACT_ALLOW',
      architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X32', 'SCMP_ARCH_AARCH64'],
      syscalls: [
        { names: ['getcwd', 'mkdirat', 'sethostname', 'kexec_load'], action: 'SCMP_ACT_ERRNO', errnoRet: 113 },
        { names: ['sync'], action: 'SCMP_ACT_ERRNO', args: [{ index: 0, value: 0x100000000n, op: 'SCMP_CMP_GE' }] },
        { names: ['fsync'], action: 'SCMP_ACT_ERRNO', errnoRet: 5, args: [{ index: 0, value: 0xf0, valueTwo: 0x30, op: 'SCMP_CMP_MASKED_EQ' }] },
      ],
    };
    const { policy } = policyOf(profile, 'seccomp');
    for (const args of [[0], [0x100000001], [0x1234], [0xffffffff]]) {
      const [{ answers }] = await ask([['filter-answers', 0, last, ...args]], { seccomp: profile });
      expect(differences(answers, expected(policy, args.map(BigInt)))).toEqual([]);
    }
  });
});

describe('the receipt', () => {
  test('says what is in force, and the kernel says the same', async () => {
    const seen = async (options: SpawnOptions) => {
      const { answers, result } = await askFully(['status'], options);
      const { seccomp, seccompFilters, noNewPrivs } = answers[0];
      return { seccomp, seccompFilters, noNewPrivs, receipt: result.isolation.seccomp };
    };
    const instructions = expect.any(Number);
    expect(await seen({})).toEqual({ seccomp: 2, seccompFilters: 1, noNewPrivs: 1, receipt: { profile: 'default', instructions } });
    expect(await seen({ seccomp: 'unconfined' })).toEqual({ seccomp: 0, seccompFilters: 0, noNewPrivs: 1, receipt: false });
    const custom = { defaultAction: 'SCMP_ACT_LOG' };
    expect(await seen({ seccomp: custom })).toEqual({ seccomp: 2, seccompFilters: 1, noNewPrivs: 1, receipt: { profile: 'custom', instructions } });
    expect(await seen({ init: true })).toMatchObject({ seccomp: 2, seccompFilters: 1 });
  });

  test('also where privileges may be gained: installed while the right to do so is there', async () => {
    for (const user of [0, 1]) {
      if (user === 1 && process.getuid?.() !== 0) continue;
      const [status, caps, answers] = await ask(['status', 'caps', ['unshare', 'user']], { noNewPrivileges: false, user: { uid: user, gid: user } });
      expect(status).toMatchObject({ seccomp: 2, seccompFilters: 1, noNewPrivs: 0 });
      expect(caps).toMatchObject({ effective: '0'.repeat(16), permitted: '0'.repeat(16) });
      expect(answers.errno).toBe('EPERM');
    }
  });
});

describe('what a profile does', () => {
  const of = (names: string[], action: string, more: object = {}): SeccompProfile => ({
    defaultAction: 'SCMP_ACT_ALLOW',
    syscalls: [{ names, action, ...more }],
  });

  test('kills, logs, refuses', async () => {
    const ending = async (action: string) => {
      const { exitCode, signal, stdout } = await runIsolated(
        insideFixture('probe'),
        ['syscall', 'getppid'],
        withFixtures({ seccomp: of(['getppid'], action) }),
      );
      return { exitCode, signal, answer: /"errno":(\w+|"\w+")/.exec(stdout)?.[1] };
    };
    expect(await ending('SCMP_ACT_KILL_PROCESS')).toEqual({ exitCode: null, signal: 'SIGSYS', answer: undefined });
    expect(await ending('SCMP_ACT_KILL')).toEqual({ exitCode: null, signal: 'SIGSYS', answer: undefined });
    expect(await ending('SCMP_ACT_TRAP')).toEqual({ exitCode: null, signal: 'SIGSYS', answer: undefined });
    // Nobody traces it: seccomp(2), SECCOMP_RET_TRACE.
    expect(await ending('SCMP_ACT_TRACE')).toEqual({ exitCode: 0, signal: null, answer: '"ENOSYS"' });
    expect(await ending('SCMP_ACT_LOG')).toEqual({ exitCode: 0, signal: null, answer: 'null' });
    expect(await ending('SCMP_ACT_ERRNO')).toEqual({ exitCode: 0, signal: null, answer: '"EPERM"' });
  });

  test('a profile object that has changed since is compiled anew', async () => {
    const profile = of(['getppid'], 'SCMP_ACT_ERRNO');
    const before = await ask([['syscall', 'getppid']], { seccomp: profile });
    profile.syscalls = [];
    const after = await ask([['syscall', 'getppid']], { seccomp: profile });
    expect([before[0].errno, after[0].errno]).toEqual(['EPERM', null]);
  });

  test('a start that it hinders is told with the step', async () => {
    const failed = runIsolated('true', { noNewPrivileges: false, seccomp: of(['capset'], 'SCMP_ACT_ERRNO') });
    await expect(failed).rejects.toMatchObject({ code: 'ERR_CLOISTER_STEP', step: 'drop capabilities', syscall: 'capset', errnoName: 'EPERM' });
  });
});
