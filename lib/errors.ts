import { getSystemErrorMap } from 'node:util';
import { harmless } from './text.js';

export type ErrorCode = `ERR_CLOISTER_${string}`;

export interface ErrorDetails {
  readonly errno?: number | undefined;
  readonly syscall?: string | undefined;
  readonly step?: string | undefined;
  readonly index?: number | undefined;
  readonly path?: string | undefined;
  readonly hint?: string | undefined;
  readonly evidence?: readonly string[] | undefined;
  readonly address?: string | undefined;
  readonly port?: number | undefined;
  readonly cause?: unknown;
}

/**
 * A refusal, by the host or by the rules of this library; docs/errors.md lists every `code`. The message alone tells what
 * failed, where, and what to do about it.
 */
export class IsolationError extends Error {
  readonly code: ErrorCode;
  /** Negative, as Node's own; `errnoName` is its name ('EPERM'). */
  declare readonly errno?: number;
  declare readonly errnoName?: string;
  /** The system call that was refused. */
  declare readonly syscall?: string;
  /** What was being done, in the words of `explain()`. */
  declare readonly step?: string;
  /** The step's index in the plan, as `explain()` numbers them. */
  declare readonly index?: number;
  declare readonly path?: string;
  /** What to do about it. */
  declare readonly hint?: string;
  /** What was read on this host to find the cause. */
  declare readonly evidence?: readonly string[];

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(details.hint === undefined ? message : `${message}\n  ${details.hint}`, 'cause' in details ? { cause: details.cause } : undefined);
    this.name = new.target.name;
    this.code = code;
    const { cause: _, ...fields } = details;
    for (const [key, value] of Object.entries(fields)) {
      if (value !== undefined) Object.defineProperty(this, key, { value, enumerable: true });
    }
    if (details.errno !== undefined) {
      Object.defineProperty(this, 'errnoName', { value: errnoName(details.errno), enumerable: true });
    }
  }

  /** 'EPERM: mount /proc: fsmount: operation not permitted' and the hint below it. */
  static ofErrno(code: ErrorCode, errno: number, details: ErrorDetails & { what?: string } = {}): IsolationError {
    const { what, ...rest } = details;
    const { step, path, syscall } = details;
    const where = [step, step !== undefined && path !== undefined && step.endsWith(path) ? undefined : path, syscall && `(${syscall})`]
      .filter(Boolean)
      .join(' ');
    return new this(code, `${errnoName(errno)}: ${where}: ${what ?? errnoText(errno)}`, { ...rest, errno });
  }
}

/** A refusal of the control groups. */
export class CgroupError extends IsolationError {}
/** A refusal about layers, images or a registry. */
export class ImageError extends IsolationError {}
/** A refusal about networks. */
export class NetworkError extends IsolationError {
  /** What was to be bound or connected to. */
  declare readonly address?: string;
  declare readonly port?: number;
}

/** Those that Node's own list does not have: errno(3). */
const otherErrnos: Readonly<Record<number, readonly [name: string, text: string]>> = {
  8: ['ENOEXEC', 'exec format error'],
  10: ['ECHILD', 'no child processes'],
  15: ['ENOTBLK', 'block device required'],
  35: ['EDEADLK', 'resource deadlock avoided'],
  37: ['ENOLCK', 'no locks available'],
  61: ['ENODATA', 'no data available'],
  77: ['EBADFD', 'file descriptor in bad state'],
  79: ['ELIBACC', 'can not access a needed shared library'],
  80: ['ELIBBAD', 'accessing a corrupted shared library'],
  87: ['EUSERS', 'too many users'],
  116: ['ESTALE', 'stale file handle'],
  117: ['EUCLEAN', 'structure needs cleaning'],
  122: ['EDQUOT', 'disk quota exceeded'],
};

/** `ENOENT` for -2. */
export function errnoName(errno: number): string {
  return (getSystemErrorMap().get(errno) ?? otherErrnos[-errno])?.[0] ?? `E${-errno}`;
}

export function errnoText(errno: number): string {
  return (getSystemErrorMap().get(errno) ?? otherErrnos[-errno])?.[1] ?? `error ${-errno}`;
}

/** A wrong option: thrown before any system call. */
export function optionError(option: string, takes: string, got: unknown): TypeError {
  const error = new TypeError(`option '${option}' takes ${takes}; got ${describe(got)}`);
  return Object.assign(error, { code: 'ERR_CLOISTER_OPTION', option });
}

export function describe(value: unknown): string {
  if (typeof value === 'string') return harmless(JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value));
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return `a function`;
  if (value === null || typeof value !== 'object') return String(value);
  if (Array.isArray(value)) return `an array of ${value.length}`;
  // JSON of a stranger may have a constructor of its own.
  const { name } = (Object.hasOwn(value, 'constructor') ? Object : (value.constructor ?? Object)) as { name: unknown };
  return `an instance of ${typeof name === 'string' && name !== '' ? harmless(name) : 'Object'}`;
}
