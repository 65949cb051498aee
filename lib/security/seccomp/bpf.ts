// Classic BPF (linux/filter.h), put together from its end: a jump only leads forwards, so where it leads is known by then.

/** An instruction's place, counted from the end of the program. */
export type Label = number;

const LD_W_ABS = 0x20;
const ALU_AND_K = 0x54;
const JMP_JA = 0x05;
const RET_K = 0x06;
const jumps = { '==': 0x15, '>': 0x25, '>=': 0x35 } as const;

/** struct seccomp_data: nr, arch, instruction_pointer, args[6]; little-endian on all that we build for. */
export const dataOffset = { number: 0, architecture: 4, low: (index: number): number => 16 + 8 * index, high: (index: number): number => 20 + 8 * index };

export class ReverseAssembler {
  readonly #code: [code: number, ifTrue: number, ifFalse: number, k: number][] = [];
  readonly #returns = new Map<number, Label>();

  get length(): number {
    return this.#code.length;
  }

  load(offset: number): Label {
    return this.#push(LD_W_ABS, 0, 0, offset);
  }

  and(mask: number): Label {
    return this.#push(ALU_AND_K, 0, 0, mask);
  }

  return(action: number): Label {
    const known = this.#returns.get(action);
    if (known !== undefined && this.length - known < 200) return known;
    const label = this.#push(RET_K, 0, 0, action);
    this.#returns.set(action, label);
    return label;
  }

  branch(operator: keyof typeof jumps, k: number, ifTrue: Label, ifFalse: Label): Label {
    if (ifTrue === ifFalse) return ifTrue;
    const near = this.#near(ifTrue);
    const other = this.#near(ifFalse);
    return this.#push(jumps[operator], this.#distance(near), this.#distance(other), k);
  }

  /** What follows begins at `label`. */
  continueAt(label: Label): void {
    if (label !== this.length - 1) this.#push(JMP_JA, 0, 0, this.#distance(label));
  }

  /** struct sock_filter[]. */
  finish(): Uint8Array {
    const bytes = new Uint8Array(this.length * 8);
    const view = new DataView(bytes.buffer);
    for (const [index, [code, ifTrue, ifFalse, k]] of this.#code.reverse().entries()) {
      view.setUint16(index * 8, code, true);
      view.setUint8(index * 8 + 2, ifTrue);
      view.setUint8(index * 8 + 3, ifFalse);
      view.setUint32(index * 8 + 4, k, true);
    }
    return bytes;
  }

  /** A conditional jump reaches 255 instructions, an unconditional one all; one more may come between. */
  #near(label: Label): Label {
    return this.#distance(label) < 255 ? label : this.#push(JMP_JA, 0, 0, this.#distance(label));
  }

  #distance(label: Label): number {
    return this.length - label - 1;
  }

  #push(code: number, ifTrue: number, ifFalse: number, k: number): Label {
    return this.#code.push([code, ifTrue, ifFalse, k]) - 1;
  }
}
