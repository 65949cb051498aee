import { constants, openSync } from 'node:fs';
import * as net from 'node:net';
import type { Duplex, Readable, Writable } from 'node:stream';
import { checked, native } from '../native.js';
import type { Settings } from './settings.js';
import { isPiped, streamDescriptor } from './stdio-settings.js';
import { Terminal } from './terminal.js';
import type { StdioOption } from './types.js';

/** Both ends of the program's descriptors. */
export interface Streams {
  /** For the plan, which takes them; all numbers lie above those that the program will have. */
  readonly child: readonly number[];
  readonly parent: readonly (Readable | Writable | Duplex | null)[];
  readonly terminal: TerminalChannel | undefined;
  /** All that can be read; nothing is, before `start`. */
  readonly readers: readonly { start(): void }[];
  /** The streams that `outputLimit` counts, and how much lies in each that nobody has read yet. */
  readonly outputs: readonly { waiting(): number }[];
}

/** The socket that the terminal's master comes through; ours is open until one of the two has been called. */
export class TerminalChannel {
  readonly stream: Terminal;
  readonly theirs: number;
  #ours: number;

  constructor(stream: Terminal, ours: number, theirs: number) {
    this.stream = stream;
    this.#ours = ours;
    this.theirs = theirs;
  }

  /** The child has sent it, or never will. */
  connect(): void {
    if (this.#ours < 0) return;
    const fd = native().receiveDescriptor(this.#ours);
    this.#close();
    this.stream.connect(fd >= 0 ? fd : undefined);
  }

  discard(): void {
    if (this.#ours < 0) return;
    this.#close();
    this.stream.connect(undefined);
  }

  #close(): void {
    native().close(this.#ours);
    this.#ours = -1;
  }
}

export type Meter = (chunk: Buffer) => Buffer | undefined;

/** Reads nothing before `start`: what a program says must not come before its 'spawn'. */
class HeldSocket extends net.Socket {
  /** Declared only: Node's constructor asks for data before ours could set it. */
  declare private started?: boolean;

  override _read(size: number): void {
    if (this.started) super._read(size);
  }

  start(): void {
    this.started = true;
    super._read(0);
  }
}

/** Counts what is read before anybody sees it, whether or not somebody is reading. */
class Output extends HeldSocket {
  readonly #meter: Meter;
  readonly #fd: number;

  constructor(fd: number, meter: Meter) {
    super({ fd, readable: true, writable: false });
    this.#meter = meter;
    this.#fd = fd;
  }

  waiting(): number {
    return this.destroyed ? 0 : Math.max(native().waitingBytes(this.#fd), 0);
  }

  override push(chunk: unknown, encoding?: BufferEncoding): boolean {
    if (!Buffer.isBuffer(chunk)) return super.push(chunk, encoding);
    const rest = this.#meter(chunk);
    return rest === undefined || rest.length === 0 ? true : super.push(rest);
  }
}

let nullDevice: number | undefined;

export function openStreams(settings: Settings, meter: (index: number) => Meter): Streams {
  const least = settings.stdio.length + 6;
  const child: number[] = [];
  const parent: (Readable | Writable | Duplex | null)[] = [];
  const opened: number[] = [];
  const hold = <T extends number>(fd: T): T => {
    opened.push(fd);
    return fd;
  };
  const give = (fd: number): void => {
    // Above the program's own numbers, or one dup3 could overwrite the source of another.
    child.push(fd >= least ? fd : moveUp(fd, least, opened));
  };
  try {
    if (settings.tty) {
      const [ours, theirs] = checked(native().socketPair(), 'socketpair', 'make the streams') as [number, number];
      hold(ours);
      give(hold(theirs));
      const stream = new Terminal(settings.tty, meter(1));
      parent.push(stream, stream, null);
      const channel = child.pop() as number;
      // The slots are overwritten by the terminal's own slave.
      for (let index = 0; index < 3; index++) give(hold(duplicate(nullFd(), least)));
      return { child, parent, terminal: new TerminalChannel(stream, ours, channel), readers: [stream], outputs: [stream] };
    }
    for (const [index, option] of settings.stdio.entries()) {
      const [theirs, ours] = openOne(option, index, least, hold);
      give(theirs);
      if (ours === undefined) parent.push(null);
      else {
        parent.push(streamOf(native().handOver(ours), index, meter));
        opened.splice(opened.indexOf(ours), 1);
      }
    }
    return {
      child,
      parent,
      terminal: undefined,
      readers: parent.filter((stream): stream is HeldSocket => stream instanceof HeldSocket && stream.readable),
      outputs: parent.filter((stream) => stream instanceof Output),
    };
  } catch (error) {
    for (const stream of parent) stream?.destroy();
    for (const fd of opened) native().close(fd);
    throw error;
  }
}

function openOne(option: StdioOption, index: number, least: number, hold: (fd: number) => number): [theirs: number, ours: number | undefined] {
  if (isPiped(option)) {
    if (index > 2) {
      const [ours, theirs] = checked(native().socketPair(), 'socketpair', 'make the streams') as [number, number];
      return [hold(theirs), hold(ours)];
    }
    // Pipes and not sockets, as child_process has: a program may open /dev/stdout again.
    const [read, write] = checked(native().pipe(), 'pipe2', 'make the streams') as [number, number];
    hold(read);
    hold(write);
    return index === 0 ? [read, write] : [write, read];
  }
  if (option === 'ignore') return [hold(duplicate(nullFd(), least)), undefined];
  if (option === 'inherit') return [hold(duplicate(index, least)), undefined];
  const fd = typeof option === 'number' ? option : streamDescriptor(option as Readable);
  return [hold(duplicate(fd ?? -1, least)), undefined];
}

function streamOf(fd: number, index: number, meter: (index: number) => Meter): Readable | Writable | Duplex {
  if (index > 0 && index < 3) return new Output(fd, meter(index));
  return new Input(fd, index > 0);
}

/** A program need not read what it is given: that it has closed its end is its choice, and must not end the host as uncaught. */
class Input extends HeldSocket {
  constructor(fd: number, readable: boolean) {
    super({ fd, readable, writable: true });
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const { code } = (error ?? {}) as NodeJS.ErrnoException;
    super._destroy(code === 'EPIPE' || code === 'ECONNRESET' ? null : error, done);
  }
}

function nullFd(): number {
  nullDevice ??= openSync('/dev/null', constants.O_RDWR);
  return nullDevice;
}

function duplicate(fd: number, least: number): number {
  return checked(native().duplicate(fd, least), 'fcntl', 'make the streams');
}

function moveUp(fd: number, least: number, opened: number[]): number {
  const higher = duplicate(fd, least);
  native().close(fd);
  opened[opened.indexOf(fd)] = higher;
  return higher;
}
