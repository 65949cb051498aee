import { namespaceTypes } from '../namespace/flags.js';
import { type Namespace, openNamespaceOf } from '../namespace/namespace.js';

import type { NamespaceByType } from '../namespace/types.js';

/** The namespaces of a running process, each opened when it is first read. */
export class ProcessNamespaces {
  readonly all: Readonly<NamespaceByType>;
  readonly #opened = new Map<string, Namespace>();

  constructor(pid: number) {
    const all = {};
    for (const type of namespaceTypes) {
      Object.defineProperty(all, type, {
        enumerable: true,
        get: () => {
          const opened = this.#opened.get(type) ?? openNamespaceOf(pid, type);
          this.#opened.set(type, opened);
          return opened;
        },
      });
    }
    this.all = all as NamespaceByType;
  }

  close(): void {
    for (const namespace of this.#opened.values()) if (!namespace.pinned) namespace.close();
    this.#opened.clear();
  }
}
