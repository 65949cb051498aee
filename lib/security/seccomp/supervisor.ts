// Decides the calls of a process that its filter asks about.

import { constants } from 'node:os';
import { inspect } from 'node:util';
import type { NativeCallListener } from '../../../types/native.js';
import { native } from '../../native.js';
import type { SeccompAnswer, SeccompCall } from '../types.js';
import { type About, aboutOf } from './denial.js';
import type { Handlers } from './notify-handlers.js';
import { decide, errnoOf, isErrno, type Policy } from './policy.js';
import { isRefusal } from './supervised.js';
import { auditArch, nativeArchitecture, syscallNames } from './syscalls.js';

/** How long a promise may take: then the caller gets EPERM. It waits, uninterruptibly but for being killed. */
const longestWait = 5000;
const { EPERM } = constants.errno;
const wordsPerCall = 9;
const goesOn = 0xffffffffffffffffn;
const pageSize = 4096n;
const longestString = 65536;

export interface SyscallDenial extends About {
  kind: 'syscall';
  pid: number;
  syscall: string;
}

/** Where open flags are that say that a new descriptor is to be closed at exec; O_CLOEXEC has many names, and one value. */
const flagsArgument: Readonly<Record<string, number>> = {
  open: 1,
  openat: 2,
  socket: 1,
  accept4: 3,
  epoll_create1: 0,
  eventfd2: 1,
  inotify_init1: 0,
  signalfd4: 3,
  timerfd_create: 1,
  dup3: 2,
};
const O_CLOEXEC = 0o2000000;

class Call implements SeccompCall {
  readonly #listener: NativeCallListener;
  readonly id: bigint;
  readonly number: number;
  readonly syscall: string;
  readonly args: readonly bigint[];
  readonly pid: number;

  constructor(listener: NativeCallListener, [id, pid, what, ...args]: readonly [bigint, bigint, bigint, ...bigint[]]) {
    this.#listener = listener;
    this.id = id;
    this.pid = Number(pid);
    this.number = Number(what & 0xffffffffn);
    const own = Number(what >> 32n) === auditArch[nativeArchitecture];
    this.syscall = (own ? syscallNames(nativeArchitecture).get(this.number) : undefined) ?? `syscall_${this.number}`;
    this.args = args;
  }

  readString(address: bigint): string | undefined {
    const parts: Buffer[] = [];
    for (let at = address, length = 0; length < longestString; ) {
      // To the end of the page: behind it there may be nothing.
      const part = this.#listener.memory(this.id, this.pid, at, Number(pageSize - (at % pageSize)));
      if (!part || part.length === 0) return undefined;
      const end = part.indexOf(0);
      if (end >= 0) return Buffer.concat([...parts, part.subarray(0, end)]).toString();
      parts.push(part);
      length += part.length;
      at += BigInt(part.length);
    }
    return undefined;
  }

  readBytes(address: bigint, length: number): Buffer | undefined {
    if (!Number.isInteger(length) || length < 0 || length > 2 ** 26) throw new RangeError('readBytes takes a length from 0 to 64 MiB');
    const bytes = this.#listener.memory(this.id, this.pid, address, length);
    return bytes && bytes.length === length ? bytes : undefined;
  }
}

export class Supervisor {
  readonly #listener: NativeCallListener;
  readonly #policy: Policy;
  readonly #handlers: Handlers;
  readonly #denied: (denial: SyscallDenial) => void;
  #responses: bigint[] = [];
  #inBatch = false;
  #closed = false;

  /** Takes the socket. What `denied` throws is the program's own business. */
  constructor(socket: number, policy: Policy, handlers: Handlers, denied: (denial: SyscallDenial) => void) {
    this.#policy = policy;
    this.#handlers = handlers;
    this.#denied = denied;
    this.#listener = new (native().CallListener)(socket, (calls) => this.#decideAll(calls));
  }

  /** Calls that wait, and later ones, get ENOSYS: seccomp_unotify(2). */
  close(): void {
    this.#closed = true;
    this.#listener.close();
  }

  #decideAll(words: BigUint64Array): void {
    this.#inBatch = true;
    for (let at = 0; at < words.length; at += wordsPerCall) {
      this.#decide(new Call(this.#listener, [...words.subarray(at, at + wordsPerCall)] as unknown as [bigint, bigint, bigint, ...bigint[]]));
    }
    this.#inBatch = false;
    this.#flush();
  }

  #decide(call: Call): void {
    const handler = this.#handlers.get(call.syscall);
    if (!handler) {
      this.#goOn(call);
      return;
    }
    let answer: ReturnType<typeof handler>;
    try {
      answer = handler(call);
    } catch (error) {
      this.#failed(call, error);
      return;
    }
    if (!(answer instanceof Promise)) {
      this.#answer(call, answer);
      return;
    }
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#failed(call, new Error(`no answer within ${longestWait} ms`));
    }, longestWait);
    const once = (act: () => void): void => {
      clearTimeout(timer);
      if (!late && !this.#closed) act();
    };
    answer.then(
      (value) => once(() => this.#answer(call, value)),
      (error) => once(() => this.#failed(call, error)),
    );
  }

  #answer(call: Call, answer: SeccompAnswer): void {
    const fields = typeof answer === 'object' && answer !== null ? (answer as Record<string, unknown>) : {};
    const [[kind, value] = [], ...more] = Object.entries(fields);
    if (answer === 'continue') this.#goOn(call);
    else if (more.length > 0) this.#wrong(call, answer);
    else if (kind === 'errno' && Object.hasOwn(constants.errno, value as string)) this.#respond(call, 0n, constants.errno[value as 'EPERM']);
    else if (kind === 'value' && (typeof value === 'bigint' || Number.isSafeInteger(value))) this.#respond(call, BigInt(value as bigint | number));
    else if (kind === 'fd' && Number.isInteger(value) && (value as number) >= 0) this.#give(call, value as number);
    else this.#wrong(call, answer);
  }

  /** What the profile says of it, as if nobody had been asked. */
  #goOn(call: Call): void {
    const answer = decide(this.#policy, nativeArchitecture, call.number, call.args);
    if (!isErrno(answer)) this.#respond(call, 0n, goesOn);
    else {
      if (isRefusal(answer)) this.#tell(call);
      this.#respond(call, 0n, errnoOf(answer));
    }
  }

  #give(call: Call, fd: number): void {
    const index = flagsArgument[call.syscall];
    const flags = index === undefined ? 0 : Number((call.args[index] as bigint) & BigInt(O_CLOEXEC));
    const result = this.#listener.addDescriptor(call.id, fd, flags);
    // The caller's table is full, or the descriptor is none of ours: it still waits.
    if (result < 0) this.#respond(call, 0n, -result);
  }

  #wrong(call: Call, answer: unknown): void {
    this.#failed(call, new TypeError(`the answer ${inspect(answer, { depth: 0 })} is not 'continue', { errno }, { value } or { fd }`));
  }

  /** Refused: who decides has failed, and the caller must not be free for that. */
  #failed(call: Call, error: unknown): void {
    const text = error instanceof Error ? error.message : String(error);
    process.emitWarning(`seccomp.notify.${call.syscall}: ${text}; the call is refused with EPERM`, {
      code: 'CLOISTER_NOTIFY',
      detail: (error instanceof Error && error.stack) || text,
    });
    this.#tell(call);
    this.#respond(call, 0n, EPERM);
  }

  #tell(call: Call): void {
    this.#denied({ kind: 'syscall', pid: call.pid, syscall: call.syscall, ...aboutOf(call) });
  }

  #respond({ id }: Call, value: bigint, errno: number | bigint = 0): void {
    if (this.#closed) return;
    this.#responses.push(id, BigInt.asUintN(64, value), BigInt(errno));
    if (!this.#inBatch) this.#flush();
  }

  #flush(): void {
    if (this.#responses.length === 0 || this.#closed) return;
    const responses = BigUint64Array.from(this.#responses);
    this.#responses = [];
    this.#listener.answer(responses);
  }
}
