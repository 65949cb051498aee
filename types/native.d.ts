// The contract between lib/ and csrc/: what the addon exports. Functions that return a number return a negative errno
// instead of throwing.

/** Why a launch failed; `phase` is an index into `phases` of lib/plan/failure.ts. */
export interface NativeFailure {
  readonly phase: number;
  readonly step: number;
  readonly errno: number;
  readonly candidate: number;
  readonly head: Buffer;
}

/** Slot and descriptor in turn: [slot, fd, slot, fd, …]. The descriptors are the receiver's. */
export type Kept = readonly number[];
/** User and system CPU time in ms, peak resident size in bytes. */
export type NativeUsage = readonly [userMs: number, systemMs: number, maxRssBytes: number];

export interface NativeProcess {
  /** pidfd_send_signal(2): 0, or a negative errno; -ESRCH before there is a process. */
  signal(number: number): number;
  /** Before the start: none will be, or it is killed. */
  cancel(): void;
  setRef(on: boolean): void;
  /** -1 when there is none. */
  pidfd(): number;
}

export interface NativeWatcher {
  /** What the file says now, which also ends the event; undefined if it is gone. */
  text(): string | undefined;
  close(): void;
}

export interface Native {
  /** Takes the descriptors in `slots` and both ends of `reportPipe`. */
  readonly Process: new (
    plan: Uint8Array,
    slots: Int32Array,
    reportPipe: readonly [read: number, write: number],
    detached: boolean,
    onStart: (failure: NativeFailure | undefined, executed: boolean, pid: number, kept: Kept) => void,
    onExit: (code: number | null, signal: number, usage: NativeUsage) => void,
  ) => NativeProcess;
  /** A plan without a child. Takes the descriptors in `slots`. Rejects with a `NativeFailure`. */
  runPlan(plan: Uint8Array, slots: Int32Array): Promise<{ readonly kept: Kept; readonly head: Buffer }>;
  /** Name and signature of each kind of step, in the order of the encoding. */
  stepKinds(): Record<string, string>;
  /** A memfd with the init program, sealed: execveat(2) it, nobody can change it. */
  initProgram(): number;
  pipe(): [read: number, write: number] | number;
  socketPair(credentials?: boolean): [ours: number, theirs: number] | number;
  duplicate(fd: number, atLeast: number): number;
  /** `flags`: of open(2), for reading without. What this or another function here opens is closed by `close`, or at the environment's end; never by `fs`. */
  openFile(path: string, flags?: number): number;
  /** One write(2). The bytes written. */
  writeText(fd: number, text: string): number;
  eventFd(): number;
  /** Each file's text (a directory's number of links), or a negative errno, by descriptor (kept open until then) or path; all in one visit to libuv's pool. */
  readFiles(files: readonly (number | string)[]): Promise<(string | number)[]>;
  /**
   * Takes the descriptor. The callback gets what the file says after each event, or undefined when it is gone. `priority`: waits
   * for POLLPRI, as the files of a cgroup tell their changes, instead of POLLIN. `keepsAlive`: the event loop waits for it.
   */
  readonly Watcher: new (
    fd: number,
    priority: boolean,
    callback: (text: string | undefined) => void,
    keepsAlive?: boolean,
  ) => NativeWatcher;
  /** A BPF program of the kind that decides about devices: bpf(2). */
  loadDeviceProgram(instructions: Uint8Array): number;
  /** `replaced`: the program that it takes the place of, in one step, or -1. */
  attachDeviceProgram(group: number, program: number, replaced: number): number;
  close(fd: number): number;
  /** Somebody else, a stream of Node's, closes it from now on. Gives it back. */
  handOver(fd: number): number;
  setOwner(fd: number, uid: number, gid: number): number;
  openProcess(pid: number): number;
  signalProcess(pidfd: number, signal: number): number;
  namespaceType(fd: number): number;
  namespaceOwner(fd: number): number;
  namespaceParent(fd: number): number;
  lockRange(fd: number, start: number, length: number): number;
  unlockRange(fd: number, start: number, length: number): number;
  setWindowSize(fd: number, columns: number, rows: number): number;
  /** FIONREAD: what can be read at once. */
  waitingBytes(fd: number): number;
  receiveDescriptor(socket: number): number;
  /** Of the process that has sent its own pidfd; the socket must pass credentials. */
  receiveProcess(socket: number): [pidfd: number, pid: number] | number;
  ignoredSignals(): bigint;
  /** poll(2) for POLLPRI or POLLERR, without waiting. */
  hasChanged(fd: number): boolean;
}
