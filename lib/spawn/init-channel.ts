import * as net from 'node:net';
import type { NativeUsage } from '../../types/native.js';
import { native } from '../native.js';

export interface InitPipes {
  /** Our ends: of the status pipe, and of the socket that the program's pidfd comes through. */
  readonly status: number;
  readonly pidfdSocket: number;
}

export interface InitReport {
  readonly code: number | null;
  readonly signal: number;
  readonly usage: NativeUsage;
}

/** What the init of a sandbox tells: csrc/init/init.c has the protocol. */
export class InitChannel {
  readonly #pipes: InitPipes;
  #socket: net.Socket | undefined;
  #bytes = Buffer.alloc(0);
  #pidfd = -1;
  #report: InitReport | undefined;
  #ended = false;
  #referenced = true;
  #whenEnded: (() => void) | undefined;

  constructor(pipes: InitPipes) {
    this.#pipes = pipes;
  }

  start(onStarted: (pid: number) => void, onFailed: (failure: { errno: number; candidate: number; head: Buffer }) => void): void {
    const socket = new net.Socket({ fd: native().handOver(this.#pipes.status), readable: true, writable: false });
    this.#socket = socket;
    if (!this.#referenced) socket.unref();
    socket.on('data', (chunk) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#parse(onStarted, onFailed);
    });
    const ended = (): void => {
      this.#ended = true;
      this.#whenEnded?.();
    };
    socket.on('close', ended);
    socket.on('error', () => {});
  }

  #parse(onStarted: (pid: number) => void, onFailed: (failure: { errno: number; candidate: number; head: Buffer }) => void): void {
    for (;;) {
      const bytes = this.#bytes;
      const kind = String.fromCharCode(bytes[0] ?? 0);
      if (kind === 'S') {
        this.#bytes = bytes.subarray(1);
        onStarted(this.#takeProgram());
      } else if (kind === 'E' && bytes.length >= 13 && bytes.length >= 13 + bytes.readUInt32LE(9)) {
        const size = bytes.readUInt32LE(9);
        this.#bytes = bytes.subarray(13 + size);
        onFailed({ errno: -bytes.readInt32LE(1), candidate: bytes.readInt32LE(5), head: bytes.subarray(13, 13 + size) });
      } else if (kind === 'X' && bytes.length >= 33) {
        const code = bytes.readInt32LE(1);
        this.#report = {
          code: code < 0 ? null : code,
          signal: bytes.readInt32LE(5),
          usage: [Number(bytes.readBigInt64LE(9)) / 1000, Number(bytes.readBigInt64LE(17)) / 1000, Number(bytes.readBigInt64LE(25)) * 1024],
        };
        this.#bytes = bytes.subarray(33);
      } else return;
    }
  }

  /** The program's pid as we see it. */
  #takeProgram(): number {
    const received = native().receiveProcess(this.#pipes.pidfdSocket);
    if (typeof received === 'number') return -1;
    this.#pidfd = received[0];
    return received[1];
  }

  signal(number: number): number {
    return this.#pidfd < 0 ? -3 : native().signalProcess(this.#pidfd, number);
  }

  setRef(on: boolean): void {
    this.#referenced = on;
    if (on) this.#socket?.ref();
    else this.#socket?.unref();
  }

  /** There was no init. */
  discard(): void {
    this.end(() => {});
  }

  /** Init has ended: what it had said, once the pipe has been read to its end. */
  end(then: (report: InitReport | undefined) => void): void {
    const finish = (): void => {
      if (this.#pidfd >= 0) native().close(this.#pidfd);
      this.#pidfd = -1;
      native().close(this.#pipes.pidfdSocket);
      if (!this.#socket) native().close(this.#pipes.status);
      then(this.#report);
    };
    if (this.#ended || !this.#socket) finish();
    else this.#whenEnded = finish;
  }
}
