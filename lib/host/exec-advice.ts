import { endianness } from 'node:os';
import { errnoText, IsolationError } from '../errors.js';
import { EACCES, ENOENT } from '../plan/constants.js';
import { foreignFormat } from './foreign-format.js';
import { bringIn, whereOnHost } from './on-host.js';

const ENOEXEC = 8;
const EISDIR = 21;
const ELIBBAD = 80;

/** e_machine of an ELF header, by the names that `uname -m` uses. */
const machines: Readonly<Record<number, string>> = {
  3: 'i386',
  8: 'mips',
  20: 'ppc',
  21: 'ppc64',
  22: 's390x',
  40: 'arm',
  62: 'x86_64',
  183: 'aarch64',
  243: 'riscv',
  258: 'loongarch64',
};
const ourMachine = process.arch === 'arm64' ? 183 : 62;

/** Why execve(2) failed, told by the first bytes of the file as they were inside. */
export function execveAdvice(paths: readonly string[], candidate: number, errno: number, head: Buffer, index: number, landlocked = false): IsolationError {
  const path = paths[candidate] ?? paths[0] ?? '';
  const name = path.split('/').at(-1) ?? path;
  const { what, hint, code } = reason(paths, path, name, -errno, head, landlocked);
  const searched = paths.length > 1 && code === 'ERR_CLOISTER_NO_PROGRAM';
  const where = { step: 'execute the program', index, syscall: 'execve', path: searched ? name : path };
  return IsolationError.ofErrno(code ?? 'ERR_CLOISTER_EXEC', errno, { ...where, what: what ?? errnoText(errno), hint });
}

interface Reason {
  readonly what?: string;
  readonly hint?: string;
  readonly code?: `ERR_CLOISTER_${string}`;
}

function reason(paths: readonly string[], path: string, name: string, errno: number, head: Buffer, landlocked: boolean): Reason {
  const interpreter = scriptInterpreter(head) ?? elfInterpreter(head);
  if (errno === ENOENT && interpreter !== undefined) {
    const script = scriptInterpreter(head) !== undefined;
    return {
      what: `${path} exists inside, but ${script ? 'the interpreter of its first line' : 'the dynamic loader that it was linked for'}, ${interpreter}, does not`,
      hint: script
        ? (bringIn(interpreter) ??
          `Put ${interpreter} into the root, or change the first line of ${path}${interpreter.endsWith('\r') ? ' (it ends with a carriage return)' : ''}.`)
        : `Put ${interpreter} and the libraries into the root, or use a statically linked program.`,
    };
  }
  if (errno === ENOENT) return noProgram(paths, path, name);
  if (errno === EACCES && landlocked) {
    // The kernel executes the interpreter too: bprm_execve, load_elf_binary.
    const other = interpreter ?? 'its interpreter or dynamic loader if it has one';
    return {
      what: `${path} exists inside, but may not be executed`,
      hint: `With \`landlock\`, ${path}, and ${other}, must be below paths of \`execute\`, if that is given. Else it lacks the x permission for this user, or is on a mount that is noexec.`,
    };
  }
  if (errno === EACCES || errno === EISDIR) {
    return {
      what: `${path} exists inside, but may not be executed`,
      hint: `It${interpreter === undefined ? '' : `, or ${interpreter}, which its first line names,`} lacks the x permission for this user, is a directory, lies below one that may not be searched, or on a mount that is noexec.`,
    };
  }
  if (errno === ENOEXEC || errno === ELIBBAD) {
    if (head.length === 0) return { what: `${path} is empty` };
    const machine = elfMachine(head);
    if (machine !== undefined && machine !== ourMachine) {
      return {
        what: `${path} is a program for ${machines[machine] ?? `machine ${machine}`}, and this machine is ${machines[ourMachine]}`,
        hint: 'Use a build for this architecture.',
      };
    }
    const foreign = foreignFormat(head);
    if (foreign !== undefined) return { what: `${path} is ${foreign}` };
    if (machine === undefined && isText(head)) {
      return { what: `${path} is a text without a first line '#!'`, hint: "Begin it with '#!/bin/sh', or run it by its interpreter: ('sh', [path])." };
    }
    return { what: `${path} is not in a format that this kernel executes` };
  }
  if (errno === 7)
    return {
      what: 'arguments and environment are larger than the kernel takes',
      hint: 'execve(2): together at most a quarter of the stack limit, each at most 128 KiB.',
    };
  return {};
}

function noProgram(paths: readonly string[], path: string, name: string): Reason {
  const code = 'ERR_CLOISTER_NO_PROGRAM';
  // A whole line of a shell where a name is expected: child_process.exec takes one.
  const command = paths.length > 1 ? name : path;
  const [first = '', ...rest] = command.split(/\s+/);
  if (rest.length > 0) {
    const words = /[|&;<>()$`"'*?\\]/.test(command) ? undefined : `(${literal(first)}, [${rest.map(literal).join(', ')}])`;
    return {
      code,
      what: `there is no program ${literal(command)} in the root`,
      hint: `The command is the name of a program, and its arguments are a list: ${words === undefined ? '' : `${words}, or, for a shell, `}('sh', ['-c', ${literal(command)}]).`,
    };
  }
  if (paths.length > 1) {
    const onHost = whereOnHost(name);
    const elsewhere =
      onHost === undefined || paths.includes(onHost) ? '' : ` On this host it is ${onHost}: \`mounts\` can bring it in, and env.PATH lead to it.`;
    return { code, what: `there is no program '${name}' in the root's PATH`, hint: `Looked for, inside: ${paths.join(', ')}.${elsewhere}` };
  }
  const relative = path.startsWith('/') ? '' : ' A relative one begins at `cwd`.';
  return {
    code,
    what: `there is no ${path} in the root`,
    hint: bringIn(path) ?? `The path is looked up inside the sandbox, not on the host.${relative} \`mounts\` can bring it in.`,
  };
}

/** As it would be written in a program. */
const literal = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

/** The path of a first line '#!', as load_script in fs/binfmt_script.c reads it. */
function scriptInterpreter(head: Buffer): string | undefined {
  if (head.length < 3 || head[0] !== 0x23 || head[1] !== 0x21) return undefined;
  const end = head.indexOf(0x0a);
  const line = head.toString('utf8', 2, end < 0 ? head.length : end);
  return /^[ \t]*([^ \t]+)/.exec(line)?.[1];
}

const isElf = (head: Buffer): boolean => head.length >= 64 && head.readUInt32BE(0) === 0x7f454c46;

function elfMachine(head: Buffer): number | undefined {
  return isElf(head) ? head.readUInt16LE(18) : undefined;
}

/** The PT_INTERP of a 64-bit ELF file in our byte order, if it lies within the head. elf(5) */
function elfInterpreter(head: Buffer): string | undefined {
  if (!isElf(head) || head[4] !== 2 || endianness() !== 'LE') return undefined;
  const [table, size, count] = [Number(head.readBigUInt64LE(32)), head.readUInt16LE(54), head.readUInt16LE(56)];
  for (let i = 0; i < count; i++) {
    const at = table + i * size;
    if (at + 56 > head.length) return undefined;
    if (head.readUInt32LE(at) !== 3) continue;
    const [offset, length] = [Number(head.readBigUInt64LE(at + 8)), Number(head.readBigUInt64LE(at + 32))];
    if (offset + length > head.length || length < 1) return undefined;
    return head.toString('utf8', offset, offset + length - 1);
  }
  return undefined;
}

function isText(head: Buffer): boolean {
  return !head.subarray(0, 512).includes(0);
}
