import { isAll, type Rule } from './controllers/devices.js';

// Device rules as a program of the type BPF_PROG_TYPE_CGROUP_DEVICE: it is given struct bpf_cgroup_dev_ctx (linux/bpf.h) and
// returns whether the access is allowed. Documentation/bpf/standardization/instruction-set.rst has the encoding.

const [R0, R1, R2, R3, R4, R5] = [0, 1, 2, 3, 4, 5];
const BPF_LDX_MEM_W = 0x61;
const BPF_MOV32_X = 0xbc;
const BPF_MOV64_K = 0xb7;
const BPF_AND32_K = 0x54;
const BPF_RSH32_K = 0x74;
const BPF_JNE_X = 0x5d;
const BPF_JNE32_K = 0x56;
const BPF_EXIT = 0x95;

// BPF_DEVCG_DEV_*, BPF_DEVCG_ACC_*
const types = { b: 1, c: 2 } as const;
const accesses = { m: 1, r: 2, w: 4 } as const;

type Instruction = readonly [code: number, destination: number, source: number, offset: number, immediate: number];

/** The last rule that fits decides, so it is asked first. What no rule says anything of is allowed, as without a program. */
export function deviceProgram(rules: readonly Rule[]): Buffer {
  const program: Instruction[] = [
    // The type in the lower, the access in the upper 16 bits of the first word.
    [BPF_LDX_MEM_W, R2, R1, 0, 0],
    [BPF_MOV32_X, R3, R2, 0, 0],
    [BPF_AND32_K, R2, 0, 0, 0xffff],
    [BPF_RSH32_K, R3, 0, 0, 16],
    [BPF_LDX_MEM_W, R4, R1, 4, 0],
    [BPF_LDX_MEM_W, R5, R1, 8, 0],
  ];
  const forAll = rules.map(isAll).lastIndexOf(true);
  for (const rule of rules.slice(forAll + 1).reverse()) program.push(...block(rule));
  program.push(...verdict(forAll < 0 ? true : (rules[forAll] as Rule).allow));
  const bytes = Buffer.alloc(program.length * 8);
  program.forEach(([code, destination, source, offset, immediate], index) => {
    bytes.writeUInt8(code, index * 8);
    bytes.writeUInt8(destination | (source << 4), index * 8 + 1);
    bytes.writeInt16LE(offset, index * 8 + 2);
    bytes.writeInt32LE(immediate | 0, index * 8 + 4);
  });
  return bytes;
}

const verdict = (allow: boolean): Instruction[] => [
  [BPF_MOV64_K, R0, 0, 0, allow ? 1 : 0],
  [BPF_EXIT, 0, 0, 0, 0],
];

/** One rule: it leads past its verdict if it does not fit. */
function block({ allow, type, major, minor, access }: Rule): Instruction[] {
  const tests: Instruction[][] = [];
  if (type !== 'a') tests.push([[BPF_JNE32_K, R2, 0, 0, types[type]]]);
  const mask = [...access].reduce((bits, letter) => bits | accesses[letter as keyof typeof accesses], 0);
  if (mask !== 7) {
    tests.push(
      allow
        ? // All that is asked for has to be allowed …
          [
            [BPF_MOV32_X, R1, R3, 0, 0],
            [BPF_AND32_K, R1, 0, 0, mask],
            [BPF_JNE_X, R1, R3, 0, 0],
          ]
        : // … and to deny one part of it is to deny it.
          [
            [BPF_MOV32_X, R1, R3, 0, 0],
            [BPF_AND32_K, R1, 0, 0, mask],
            [0x16 /* BPF_JEQ32_K */, R1, 0, 0, 0],
          ],
    );
  }
  if (major !== undefined) tests.push([[BPF_JNE32_K, R4, 0, 0, major]]);
  if (minor !== undefined) tests.push([[BPF_JNE32_K, R5, 0, 0, minor]]);
  const body = [...tests.flat(), ...verdict(allow)];
  return body.map((instruction, index) => {
    const [code, destination, source, , immediate] = instruction;
    const jumps = code === BPF_JNE_X || code === BPF_JNE32_K || code === 0x16;
    return jumps ? [code, destination, source, body.length - 1 - index, immediate] : instruction;
  });
}
