import { type Arguments, type Section, type Slot, type Step, type StepKind, stepKinds } from './steps.js';

export interface IdMapTexts {
  readonly uid: string | readonly string[];
  readonly gid: string | readonly string[];
}

export interface StepOptions {
  readonly out?: Slot | undefined;
  /** errnos (positive) that are no failure. */
  readonly tolerate?: readonly number[];
  /** What this step alone is about; else as the label says. */
  readonly path?: string | undefined;
}

const headerBytes = 312;
const stepBytes = 64;
const magic = 0x4c504c43;
/** csrc/child/plan.h, kMaxSlots. */
export const maxSlots = 1600;
const kindNumber = Object.fromEntries(Object.keys(stepKinds).map((kind, index) => [kind, index])) as Record<StepKind, number>;

/**
 * Collects steps, in three sections that run one after the other: the parent's, before the clone; the joiner's, which
 * shares the parent's descriptors and enters other namespaces; the child's. `encode()` makes the buffer that
 * csrc/child/plan.h describes, good until the next plan is encoded.
 */
export class PlanBuilder {
  readonly steps: Record<Section, Step[]> = { parent: [], join: [], child: [] };
  readonly #slots: Slot[] = [];
  readonly #given: number[] = [];
  readonly #kept = new Set<number>();
  readonly #withVectors: Step[] = [];
  #section: Section = 'child';
  #label = '';
  #path: string | undefined;

  /** Flags of the child's clone3; 0: no child, the plan ends with the joiner. */
  cloneFlags = 0;
  /** Flags of the joiner's clone3; -1: there is no joiner. */
  joinFlags = -1;
  /** Written by the parent while the child (or the joiner, if it has the new user namespace) waits at await_ids. */
  idMap: IdMapTexts | undefined;
  oomScoreAdj: number | undefined;
  /** Takes the write end of the report pipe. */
  reportSlot: Slot | undefined;
  /** A network namespace that the parent is in while it clones. */
  netSlot: Slot | undefined;
  /** The directory of a cgroup v2 that the child is born in: CLONE_INTO_CGROUP, clone(2). */
  cgroupSlot: Slot | undefined;
  /** Of that directory, for errors. */
  cgroupPath: string | undefined;
  /** The context of SELinux that file systems are mounted with. */
  mountLabel: string | undefined;
  /** The joiner gets a copy of our memory, where the kernel refuses whoever shares one (setns of a time namespace). */
  ownMemory = false;
  /** The cloning thread sleeps until the child has executed, for what the kernel does to those who share memory: csrc/core/launch.cc. */
  vfork = false;

  /** Following steps go to this section. */
  in(section: Section): this {
    this.#section = section;
    return this;
  }

  get section(): Section {
    return this.#section;
  }

  /** Following steps are told as this. */
  label(label: string, path?: string): this {
    this.#label = label;
    this.#path = path;
    return this;
  }

  /** A slot that a step will fill, or that holds the descriptor `given` from the start (the plan takes it over). */
  slot(name: string, given = -1): Slot {
    const slot = { slot: this.#slots.length, name };
    if (slot.slot >= maxSlots) throw new RangeError(`a plan has at most ${maxSlots} descriptors`);
    this.#slots.push(slot);
    this.#given.push(given);
    return slot;
  }

  /** The parent is handed what this slot holds. */
  keep(slot: Slot): void {
    this.#kept.add(slot.slot);
  }

  add<K extends StepKind>(kind: K, args: Arguments<(typeof stepKinds)[K]>, options: StepOptions = {}): Step {
    const step: Step = {
      kind,
      args: args as Step['args'],
      label: this.#label,
      path: options.path ?? this.#path,
      out: options.out,
      tolerate: options.tolerate ?? [],
      skipIfDone: 0,
      skipIfTolerated: 0,
    };
    this.steps[this.#section].push(step);
    if (kind === 'exec' || kind === 'execveat' || kind === 'overlay_lowers') this.#withVectors.push(step);
    return step;
  }

  /** Closes what is not needed any more. Not in the child: all that it has opened is closed by exec, at once. */
  release(slot: Slot): void {
    if (this.#section !== 'child') this.add('close', [slot]);
  }

  /** The same, with a new slot for the result. */
  open<K extends StepKind>(name: string, kind: K, args: Arguments<(typeof stepKinds)[K]>, options: StepOptions = {}): Slot {
    const out = this.slot(name);
    this.add(kind, args, { ...options, out });
    return out;
  }

  /** The steps that `body` adds are passed over if `step` succeeds (or fails in a tolerated way). */
  unless(step: Step, when: 'done' | 'tolerated', body: () => void): void {
    const section = this.steps[this.#section];
    const before = section.length;
    body();
    step[when === 'done' ? 'skipIfDone' : 'skipIfTolerated'] = section.length - before;
  }

  get all(): readonly Step[] {
    return [...this.steps.parent, ...this.steps.join, ...this.steps.child];
  }

  /** The descriptor that a slot was given. */
  given(slot: Slot): number {
    return this.#given[slot.slot] as number;
  }

  /** The initial slots; their descriptors are the plan's from now on. */
  slots(): Int32Array {
    return Int32Array.from(this.#given);
  }

  encode(): Uint8Array {
    const steps = this.all;
    const data = new DataArea(headerBytes + steps.length * stepBytes);
    // Vectors lie before the strings, so their size must be known first.
    for (const step of this.#withVectors) for (const arg of step.args) if (Array.isArray(arg)) data.reserveVector(arg);
    const helpers = this.idMap !== undefined && typeof this.idMap.uid !== 'string';
    if (helpers) {
      data.reserveVector(this.idMap?.uid as readonly string[]);
      data.reserveVector(this.idMap?.gid as readonly string[]);
    }
    data.endVectors();

    for (let index = 0; index < steps.length; index++) encodeStep(steps[index] as Step, index, data);
    const mapOffset = (map: string | readonly string[] | undefined): number =>
      map === undefined ? -1 : typeof map === 'string' ? data.string(map) : data.vector(map);
    const uidMap = mapOffset(this.idMap?.uid);
    const gidMap = mapOffset(this.idMap?.gid);
    const oom = this.oomScoreAdj === undefined ? -1 : data.string(String(this.oomScoreAdj));

    const plan = data.finish();
    const view = new DataView(plan.buffer, plan.byteOffset);
    const parentEnd = this.steps.parent.length;
    let at = 0;
    const u32 = (value: number): void => {
      view.setUint32(at, value, true);
      at += 4;
    };
    const i64 = (value: number): void => {
      view.setInt32(at, value | 0, true);
      view.setInt32(at + 4, Math.floor(value / 2 ** 32), true);
      at += 8;
    };
    u32(magic);
    u32(plan.byteLength);
    u32(steps.length);
    u32(parentEnd);
    u32(parentEnd + this.steps.join.length);
    u32(this.#slots.length);
    u32(data.vectorsEnd);
    u32(this.joinFlags < 0 ? 0 : 1);
    i64(this.cloneFlags);
    i64(Math.max(this.joinFlags, 0));
    const keep = new Uint32Array(maxSlots / 32);
    for (const slot of this.#kept) keep[slot >>> 5] = (keep[slot >>> 5] as number) | (1 << (slot & 31));
    for (const word of keep) u32(word);
    i64(uidMap);
    i64(gidMap);
    i64(oom);
    i64(this.reportSlot === undefined ? -1 : this.reportSlot.slot);
    i64(this.netSlot === undefined ? -1 : this.netSlot.slot);
    i64(this.cgroupSlot === undefined ? -1 : this.cgroupSlot.slot);
    u32(helpers ? 1 : 0);
    u32(this.ownMemory ? 1 : 0);
    u32(this.vfork ? 1 : 0);
    u32(0);
    return plan;
  }
}

function encodeStep(step: Step, index: number, data: DataArea): void {
  const base = (headerBytes + index * stepBytes) / 4;
  const flags = (step.skipIfDone > 0 ? 1 : 0) | (step.skipIfTolerated > 0 ? 2 : 0);
  const out = step.out === undefined ? -1 : step.out.slot;
  words[base] = kindNumber[step.kind] | (flags << 16);
  words[base + 1] = (out & 0xffff) | (Math.max(step.skipIfDone, step.skipIfTolerated) << 16);
  const { tolerate } = step;
  words[base + 2] = (tolerate[0] ?? 0) | ((tolerate[1] ?? 0) << 16);
  words[base + 3] = (tolerate[2] ?? 0) | ((tolerate[3] ?? 0) << 16);
  const signature = stepKinds[step.kind];
  for (let letter = 0, next = 0; letter < signature.length; letter++) {
    // The interpreter takes the length from the bytes before it.
    if (signature[letter] === 'n') continue;
    const arg = step.args[next++];
    let low: number;
    let high: number;
    if (typeof arg === 'number') {
      // Most are small; the two halves of others are taken apart, as bit operations know 32 bits only.
      low = arg | 0;
      high = low === arg ? low >> 31 : Math.floor(arg / 2 ** 32);
      if (low !== arg) low = (arg - high * 2 ** 32) | 0;
    } else if (arg === null || arg === undefined) {
      low = high = -1;
    } else if (typeof arg === 'string') {
      low = data.string(arg);
      high = 0;
    } else if (arg instanceof Uint8Array) {
      low = data.bytes(arg);
      high = arg.byteLength;
    } else if (Array.isArray(arg)) {
      low = data.vector(arg);
      high = 0;
    } else {
      low = (arg as Slot).slot;
      high = low < 0 ? -1 : 0;
    }
    words[base + 4 + letter * 2] = low;
    words[base + 5 + letter * 2] = high;
  }
}

/** Every plan is put together here; the addon copies it before it returns. */
let scratch = Buffer.alloc(2 ** 17);
let words = new Int32Array(scratch.buffer, scratch.byteOffset, scratch.length / 4);

/** Vectors, then strings and bytes; equal strings are stored once. */
class DataArea {
  #end: number;
  #vectorsAt: number;
  vectorsEnd = 0;
  readonly #strings = new Map<string, number>();
  readonly #bytes = new Map<Uint8Array, number>();
  readonly #vectors = new Map<readonly string[], number>();

  constructor(start: number) {
    this.#vectorsAt = this.#end = start;
    this.#room(start);
    // Of the plan before this one.
    scratch.fill(0, 0, start);
  }

  reserveVector(words: readonly string[]): void {
    if (this.#vectors.has(words)) return;
    this.#vectors.set(words, this.#vectorsAt);
    this.#vectorsAt += (words.length + 1) * 8;
  }

  endVectors(): void {
    this.#room(this.#vectorsAt - this.#end);
    this.#end = this.vectorsEnd = this.#vectorsAt;
    for (const [words, offset] of this.#vectors) {
      let at = offset;
      for (const word of words) {
        const value = this.string(word);
        scratch.writeInt32LE(value, at);
        scratch.writeInt32LE(0, at + 4);
        at += 8;
      }
      scratch.fill(0xff, at, at + 8);
    }
  }

  vector(words: readonly string[]): number {
    return this.#vectors.get(words) as number;
  }

  string(text: string): number {
    const known = this.#strings.get(text);
    if (known !== undefined) return known;
    const offset = this.#end;
    this.#room(text.length * 3 + 1);
    this.#end += scratch.write(text, offset, 'utf8');
    scratch[this.#end++] = 0;
    this.#strings.set(text, offset);
    return offset;
  }

  bytes(bytes: Uint8Array): number {
    const known = this.#bytes.get(bytes);
    if (known !== undefined) return known;
    // Structures are read by the kernel as such: aligned like theirs.
    const offset = (this.#end + 7) & ~7;
    this.#room(bytes.byteLength + 8);
    scratch.fill(0, this.#end, offset);
    scratch.set(bytes, offset);
    this.#end = offset + bytes.byteLength;
    this.#bytes.set(bytes, offset);
    return offset;
  }

  finish(): Uint8Array {
    // Ends with a 0, so that every string does (check_plan).
    this.#room(1);
    scratch[this.#end++] = 0;
    return scratch.subarray(0, this.#end);
  }

  #room(bytes: number): void {
    if (this.#end + bytes <= scratch.length) return;
    const bigger = Buffer.alloc(Math.max(scratch.length * 2, this.#end + bytes + 4096));
    scratch.copy(bigger);
    scratch = bigger;
    words = new Int32Array(bigger.buffer, bigger.byteOffset, bigger.length >> 2);
  }
}
