import { constants } from 'node:os';
import { optionError } from '../errors.js';

// Checks of single values. Each throws a TypeError that names the option and what it takes.

export function text(value: unknown, option: string): string {
  if (typeof value !== 'string' || value.includes('\0')) throw optionError(option, 'a string without NUL bytes', value);
  return value;
}

export function absolutePath(value: unknown, option: string): string {
  if (typeof value !== 'string' || !value.startsWith('/') || value.includes('\0')) {
    throw optionError(option, "an absolute path, such as '/work'", value);
  }
  return value;
}

/** Absolute, or from the working directory. */
export function path(value: unknown, option: string): string {
  if (typeof value !== 'string' || value === '' || value.includes('\0')) throw optionError(option, 'a path', value);
  return value;
}

export function integer(value: unknown, option: string, least: number, most: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) {
    throw optionError(option, `a whole number from ${least} to ${most}`, value);
  }
  return value;
}

export function milliseconds(value: unknown, option: string): number {
  // setTimeout's own limit: beyond it Node would fire at once.
  if (typeof value !== 'number' || !(value > 0) || value > 0x7fffffff) {
    throw optionError(option, 'milliseconds: more than 0, at most 2147483647', value);
  }
  return value;
}

export function flag(value: unknown, option: string): boolean {
  if (typeof value !== 'boolean') throw optionError(option, 'true or false', value);
  return value;
}

export function oneOf<const T extends readonly string[]>(value: unknown, option: string, choices: T): T[number] {
  if (typeof value !== 'string' || !choices.includes(value)) {
    throw optionError(option, quoted(choices), value);
  }
  return value;
}

/** 'a', 'b' or 'c' */
export function quoted(choices: readonly string[], last?: string): string {
  const all = [...choices.map((choice) => `'${choice}'`), ...(last === undefined ? [] : [last])];
  return all.length < 2 ? all.join() : `${all.slice(0, -1).join(', ')} or ${all.at(-1)}`;
}

/** Permissions, as chmod(1) takes them. */
export function mode(value: unknown, option: string, most: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > most) {
    throw optionError(option, `permissions from 0 to 0o${most.toString(8)}`, value);
  }
  return value;
}

export function list<T>(value: unknown, option: string, item: (value: unknown, option: string) => T): T[] {
  if (!Array.isArray(value)) throw optionError(option, 'an array', value);
  return value.map((entry, index) => item(entry, `${option}[${index}]`));
}

export function record(value: unknown, option: string): Record<string, unknown> {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw optionError(option, 'an object', value);
  return value as Record<string, unknown>;
}

/** Only these keys: a misspelt option that would be ignored could be one that protects. */
export function onlyKeys(value: object, option: string, keys: readonly string[]): void {
  for (const key of Object.keys(value)) {
    if (!keys.includes(key))
      throw optionError(option === '' ? key : `${option}.${key}`, 'nothing: there is no such option', (value as Record<string, unknown>)[key]);
  }
}

export function signalName(value: unknown, option: string): NodeJS.Signals {
  if (typeof value !== 'string' || !(value in constants.signals)) throw optionError(option, "the name of a signal, such as 'SIGTERM'", value);
  return value as NodeJS.Signals;
}

/** The number of a signal's name or number, as process.kill takes them. */
export function signalNumber(value: unknown): number {
  const number = typeof value === 'string' ? (constants.signals as Readonly<Record<string, number>>)[value] : value;
  if (typeof number !== 'number' || !Number.isInteger(number) || number < 0 || number > 64) {
    throw optionError('signal', "a signal's name or number", value);
  }
  return number;
}
