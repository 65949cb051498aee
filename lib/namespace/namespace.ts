import { fstatSync } from 'node:fs';
import { IsolationError, optionError } from '../errors.js';
import { checked, native } from '../native.js';
import type { IsolatedProcess, Run } from '../spawn/types.js';
import { quoted } from '../spawn/validate.js';
import { create } from './create.js';
import { namespaceFiles, namespaceFlags, namespaceTypes } from './flags.js';
import type { UserNamespace } from './kinds.js';
import { pin } from './pin.js';
import type { NamespaceByType, NamespaceOptions, NamespaceRunOptions, NamespaceType } from './types.js';

type Constructor = new (type: NamespaceType, fd: number, release?: () => void) => Namespace;
const constructors = new Map<NamespaceType, Constructor>();

/**
 * One of the eight kinds of namespaces(7), held by a descriptor: it exists for as long as somebody holds it, or is in it, or has
 * pinned it.
 */
export class Namespace<T extends NamespaceType = NamespaceType> implements Disposable {
  readonly type: T;
  /** The inode number, as in /proc/PID/ns. */
  readonly id: bigint;
  readonly #fd: number;
  readonly #release: (() => void) | undefined;
  #closed = false;
  /** @internal Somebody wants it to stay. */
  pinned = false;

  /** @internal Takes the descriptor. */
  constructor(type: T, fd: number, release?: () => void) {
    this.type = type;
    this.#fd = fd;
    this.#release = release;
    this.id = fstatSync(fd, { bigint: true }).ino;
  }

  /** @internal */
  protected static register(type: NamespaceType, kind: unknown): void {
    constructors.set(type, kind as Constructor);
  }

  /** @internal The class of its kind. */
  static hold<T extends NamespaceType>(type: T, fd: number, release?: () => void): NamespaceByType[T] {
    const kind = constructors.get(type) as Constructor;
    return new kind(type, fd, release) as unknown as NamespaceByType[T];
  }

  /**
   * A new one. Of root, owned by our user namespace (or `owner`); of an ordinary user, by a user namespace made for it, together
   * with which it is joined. `create('pid')` and `create('time')` keep a tiny init alive inside, which `close()` ends. A new net
   * namespace has its loopback device up.
   *
   * Rejects with `TypeError` for wrong options, `IsolationError` ERR_CLOISTER_NAMESPACE or ERR_CLOISTER_ID_MAP.
   */
  static async create<T extends NamespaceType>(type: T, options: NamespaceOptions = {}): Promise<NamespaceByType[T]> {
    checkType(type);
    const { fd, release } = await create(type, options);
    return Namespace.hold(type, fd, release);
  }

  /** That of a process: ours, one of this library, or any that we may look at (ptrace(2), PTRACE_MODE_READ). */
  static async of<T extends NamespaceType>(target: number | IsolatedProcess | 'self', type: T): Promise<NamespaceByType[T]> {
    checkType(type);
    const pid = target === 'self' ? process.pid : typeof target === 'object' && target !== null ? target.pid : target;
    if (typeof pid !== 'number' || !Number.isInteger(pid) || pid <= 0) throw optionError('target', "a pid, a process that is running, or 'self'", target);
    return openNamespaceOf(pid, type);
  }

  /** From a file: /proc/PID/ns/…, or where one has been pinned. Without `type`, the kind is the file's. */
  static async open<T extends NamespaceType = NamespaceType>(path: string, type?: T): Promise<NamespaceByType[T]> {
    if (type !== undefined) checkType(type);
    return openNamespaceFile(path, type) as NamespaceByType[T];
  }

  /** Throws ERR_CLOISTER_DISPOSED after `close()`. */
  get fd(): number {
    if (this.#closed) throw new IsolationError('ERR_CLOISTER_DISPOSED', `this ${this.type} namespace has been closed`);
    return this.#fd;
  }

  equals(other: Namespace): boolean {
    return this.type === other.type && this.id === other.id;
  }

  /** The user namespace whose capabilities count in it. Rejects where that lies above ours: ioctl_ns(2), NS_GET_USERNS. */
  async owner(): Promise<UserNamespace> {
    return Namespace.hold('user', checked(native().namespaceOwner(this.fd), 'ioctl(NS_GET_USERNS)', `find the owner of a ${this.type} namespace`));
  }

  /** Binds it to a file, made if missing, so that it outlives its processes and this one. Needs CAP_SYS_ADMIN. */
  async pin(path: string): Promise<void> {
    await pin(this.fd, path);
    this.pinned = true;
  }

  /** One command in it (and, for an ordinary user, in the user namespace that owns it), all else the caller's, as nsenter(1). */
  readonly run: Run<NamespaceRunOptions> = (async (command: string, ...rest: unknown[]) => {
    // Later than the modules are linked: spawning stands on namespaces, not the other way round.
    const { runInNamespace } = await import('../spawn/run-in-namespace.js');
    return runInNamespace(this, command, rest);
  }) as Run<NamespaceRunOptions>;

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    native().close(this.#fd);
    this.#release?.();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function checkType(type: unknown): void {
  if (!namespaceTypes.includes(type as NamespaceType)) throw optionError('type', quoted(namespaceTypes), type);
}

export function openNamespaceOf<T extends NamespaceType>(pid: number, type: T): NamespaceByType[T] {
  return openNamespaceFile(`/proc/${pid}/ns/${namespaceFiles[type]}`, type) as NamespaceByType[T];
}

function openNamespaceFile(path: string, type?: NamespaceType): NamespaceByType[NamespaceType] {
  const fd = native().openFile(path);
  if (fd < 0) throw IsolationError.ofErrno('ERR_CLOISTER_NAMESPACE', fd, { step: 'open a namespace', syscall: 'open', path });
  const flag = native().namespaceType(fd);
  const found = namespaceTypes.find((name) => namespaceFlags[name] === flag);
  if (found === undefined || (type !== undefined && found !== type)) {
    native().close(fd);
    throw optionError('path', type === undefined ? 'a namespace' : `a ${type} namespace`, found === undefined ? path : `${path}, a ${found} namespace`);
  }
  return Namespace.hold(found, fd);
}
