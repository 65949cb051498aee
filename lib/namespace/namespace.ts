import { closeSync, fstatSync, openSync } from 'node:fs';
import { IsolationError, optionError } from '../errors.js';
import { native } from '../native.js';
import type { Run } from '../spawn/types.js';
import { namespaceFlags, namespaceFiles } from './flags.js';
import type { NamespaceByType, NamespaceOptions, NamespaceRunOptions, NamespaceType } from './types.js';

export class Namespace<T extends NamespaceType = NamespaceType> {
  declare readonly type: T;
}
export { closeSync, fstatSync, openSync, IsolationError, optionError, native, namespaceFlags, namespaceFiles };
export type { Run, NamespaceByType, NamespaceOptions, NamespaceRunOptions };
