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

export interface NativeCounterFiles {
  /**
   * In one visit to libuv's pool; the promise is of what `make` returns. Numbers and texts begin with one that is not there (NaN, undefined), and are
   * lent for the length of the call.
   */
  read<T>(make: (numbers: Float64Array, texts: readonly (string | undefined)[]) => T): Promise<T>;
  /** Lets go of what is kept open, when the readings that have begun are over. */
  close(): void;
}

export interface NativeCallListener {
  /** Three words for each answer: id, value, errno (positive); or 2^64 - 1 in place of the errno: the call goes on. */
  answer(responses: BigUint64Array): void;
  /** The call returns this descriptor, copied into the caller's table; `flags`: O_CLOEXEC or 0. The number there, or a negative errno. */
  addDescriptor(id: bigint, fd: number, flags: number): number;
  /** What of these bytes can be read; undefined if none, and if the caller is gone. */
  memory(id: bigint, pid: number, address: bigint, length: number): Buffer | undefined;
  close(): void;
}

export interface NativeRelays {
  /**
   * Takes both descriptors, connected stream sockets. What was read from one before belongs to the other. The pair's number, or a negative errno: then
   * both have been reset. A pace is that of what comes from one.
   */
  add(one: number, other: number, readOfOne: Uint8Array, readOfOther: Uint8Array, paceOfOne?: NativePace, paceOfOther?: NativePace): number;
}

declare const pace: unique symbol;
/** A bucket of bytes that fills at a rate. */
export interface NativePace {
  readonly [pace]: true;
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
  /** The ABI of the kernel's Landlock, or a negative errno. */
  landlockAbi(): number;
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
   * `keys`: for each file the names of what is wanted of it ('' is its first line as a number, 'anon' a line of that name, 'some avg10' a pair of such a
   * line), or undefined for its text. `keep`: they stay open from the first reading on, and one that could not be opened then is never there.
   */
  readonly CounterFiles: new (
    paths: readonly string[],
    keys: readonly (readonly string[] | undefined)[],
    keep: boolean,
  ) => NativeCounterFiles;
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
  /**
   * Sends messages of netlink(7), and gives all that the kernel has to say to them, one after the other, or a negative errno. One
   * exchange at a time for a socket.
   */
  netlinkExchange(fd: number, messages: Uint8Array): Promise<Buffer | number>;
  /**
   * seccomp_unotify(2). Takes the descriptor, a socket through which the listener will come. Each call is nine words: id, pid,
   * architecture in the upper half and number in the lower, six arguments.
   */
  readonly CallListener: new (
    socket: number,
    callback: (calls: BigUint64Array) => void,
  ) => NativeCallListener;
  /**
   * A UDP socket that tells where each datagram was going: ip(7), IP_RECVORIGDSTADDR, which must be set. Takes the descriptor; the event loop
   * does not wait for it.
   */
  readonly Datagrams: new (
    fd: number,
    callback: (data: Buffer, from: string, fromPort: number, to: string, toPort: number) => void,
  ) => { close(): void };
  /** A whole IP packet by a raw socket, to a struct sockaddr: raw(7). The bytes sent. */
  sendPacket(fd: number, packet: Uint8Array, address: Uint8Array): number;
  /**
   * Pairs of connections, each carried by a thread as one. The callback gets the numbers of those that are over; the event loop does not wait
   * for them.
   */
  readonly Relays: new (
    onEnded: (numbers: readonly number[]) => void,
  ) => NativeRelays;
  pace(bytesPerSecond: number): NativePace;
  /** What has gone otherwise; also more than may. */
  spend(pace: NativePace, bytes: number): void;
  /** Milliseconds until something may go: 0 is now. */
  paceWait(pace: NativePace): number;
  /** A BPF program of the kind that decides about devices: bpf(2). */
  loadDeviceProgram(instructions: Uint8Array): number;
  /** `replaced`: the program that it takes the place of, in one step, or -1. */
  attachDeviceProgram(group: number, program: number, replaced: number): number;
  close(fd: number): number;
  /** As close, in libuv's pool. */
  closeDescriptors(fds: readonly number[]): Promise<void>;
  /** Somebody else, a stream of Node's, closes it from now on. Gives it back. */
  handOver(fd: number): number;
  setOwner(fd: number, uid: number, gid: number): number;
  openProcess(pid: number): number;
  signalProcess(pidfd: number, signal: number): number;
  namespaceType(fd: number): number;
  namespaceOwner(fd: number): number;
  namespaceParent(fd: number): number;
  /** Never waits: -EAGAIN if somebody else has it. `shared`: others may have it shared, too. */
  lockRange(fd: number, start: number, length: number, shared?: boolean): number;
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
  readonly files: NativeFiles;
}

/**
 * System calls on entries of directories: a descriptor, and one name as bytes. A name with a slash or a NUL, and '..', is EINVAL. Symlinks are
 * never followed. What opens gives a descriptor that `close` closes.
 */
export interface NativeFiles {
  /** Names but '.' and '..', each with a NUL behind it. */
  list(fd: number): Buffer | number;
  /**
   * statx(2): mode, nlink, uid, gid, size, major, minor, mtime (s, ns), ctime (s, ns), device (major, minor), inode (high 32 bits,
   * low 32 bits), blocks of 512. An empty name: of the descriptor itself.
   */
  status(fd: number, name: Uint8Array, into: Float64Array): number;
  /** openat2(2) with O_NOFOLLOW, O_CLOEXEC, RESOLVE_BENEATH, NO_SYMLINKS and NO_MAGICLINKS, and what is given. */
  open(fd: number, name: Uint8Array, flags: number, mode: number, resolve: number): number;
  /** The same object with other rights: of O_PATH, say. */
  reopen(fd: number, flags: number): number;
  makeDirectory(fd: number, name: Uint8Array, mode: number): number;
  makeNode(fd: number, name: Uint8Array, mode: number, major: number, minor: number): number;
  makeLink(fd: number, name: Uint8Array, target: Uint8Array): number;
  readLink(fd: number, name: Uint8Array): Buffer | number;
  link(fromFd: number, from: Uint8Array, fd: number, name: Uint8Array): number;
  unlink(fd: number, name: Uint8Array, flags: number): number;
  rename(fromFd: number, from: Uint8Array, fd: number, name: Uint8Array, flags: number): number;
  setOwner(fd: number, name: Uint8Array, uid: number, gid: number): number;
  setMode(fd: number, mode: number): number;
  setTime(fd: number, name: Uint8Array, seconds: number, nanoseconds: number): number;
  /** Of any object, also by a descriptor that was opened with O_PATH. Names, each with a NUL behind it. */
  listAttributes(fd: number): Buffer | number;
  getAttribute(fd: number, name: Uint8Array): Buffer | number;
  setAttribute(fd: number, name: Uint8Array, value: Uint8Array): number;
  removeAttribute(fd: number, name: Uint8Array): number;
  /** Where data begins, or a hole, at `offset` or behind it. -ENXIO: not before the end. */
  seek(fd: number, offset: number, data: boolean): number;
  read(fd: number, buffer: Uint8Array, offset: number, length: number, position: number): number;
  write(fd: number, buffer: Uint8Array, offset: number, length: number, position: number): number;
  copyRange(from: number, to: number, offset: number, length: number): number;
  truncate(fd: number, length: number): number;
  syncFile(fd: number): number;
  syncFilesystem(fd: number): number;
  /** Reading from and writing to it do not wait (-EAGAIN). */
  preparePipe(fd: number, size: number): number;
  /** 0: nothing has happened in that time. */
  wait(fd: number, forWriting: boolean, milliseconds: number): number;
}
