// The `mounts` option, checked.

import { normalize } from 'node:path';
import { optionError } from '../errors.js';
import type { IdMap } from '../namespace/types.js';
import { OverlayRootfs } from '../rootfs/overlay-rootfs.js';
import { checkRangesOf } from '../security/id-map.js';
import { parseSize } from '../units.js';
import type { Mount } from './types.js';
import * as check from './validate.js';

export type MountSetting =
  | {
      readonly type: 'bind';
      readonly source: string;
      readonly target: string;
      readonly readonly: boolean;
      readonly recursive: boolean;
      readonly idMap: IdMap | undefined;
    }
  | { readonly type: 'tmpfs'; readonly target: string; readonly size: number | undefined; readonly mode: number }
  | { readonly type: 'proc' | 'sysfs' | 'devpts' | 'mqueue' | 'cgroup'; readonly target: string }
  | { readonly type: 'overlay'; readonly target: string; readonly source: OverlayRootfs }
  | {
      readonly type: 'overlay';
      readonly target: string;
      readonly layers: readonly string[];
      readonly upper: string | undefined;
      readonly work: string | undefined;
    }
  | {
      readonly type: 'file';
      readonly target: string;
      readonly contents: Uint8Array;
      readonly mode: number;
      /** A last name that is a symlink is what is mounted on: it may lead nowhere. */
      readonly onSymlink?: boolean;
    };

const mountTypes = ['bind', 'tmpfs', 'proc', 'sysfs', 'devpts', 'mqueue', 'cgroup', 'overlay', 'file'] as const;

export function mountOf(value: unknown, option: string): MountSetting {
  const mount = check.record(value, option) as unknown as Mount;
  const type = check.oneOf(mount.type, `${option}.type`, mountTypes);
  const target = normalize(check.absolutePath(mount.target, `${option}.target`));
  if (target === '/') throw optionError(`${option}.target`, "a path below '/': the root itself is `rootfs`", mount.target);
  const keys = (...names: string[]): void => check.onlyKeys(mount, option, ['type', 'target', ...names]);
  switch (mount.type) {
    case 'bind':
      keys('source', 'readonly', 'recursive', 'idMap');
      return {
        type: 'bind',
        target,
        source: check.absolutePath(mount.source, `${option}.source`),
        readonly: mount.readonly === undefined ? false : check.flag(mount.readonly, `${option}.readonly`),
        recursive: mount.recursive === undefined ? true : check.flag(mount.recursive, `${option}.recursive`),
        idMap: mount.idMap === undefined ? undefined : checkRangesOf(mount.idMap, `${option}.idMap`),
      };
    case 'tmpfs':
      keys('size', 'mode');
      return {
        type: 'tmpfs',
        target,
        size: mount.size === undefined ? undefined : parseSize(mount.size, `${option}.size`),
        mode: mount.mode === undefined ? 0o755 : check.mode(mount.mode, `${option}.mode`, 0o7777),
      };
    case 'file':
      keys('contents', 'mode');
      if (typeof mount.contents !== 'string' && !(mount.contents instanceof Uint8Array))
        throw optionError(`${option}.contents`, 'a string or bytes', mount.contents);
      return {
        type: 'file',
        target,
        contents: typeof mount.contents === 'string' ? Buffer.from(mount.contents) : Uint8Array.from(mount.contents),
        mode: mount.mode === undefined ? 0o644 : check.mode(mount.mode, `${option}.mode`, 0o777),
      };
    case 'overlay':
      if ('source' in mount) {
        keys('source');
        if (!(mount.source instanceof OverlayRootfs)) throw optionError(`${option}.source`, 'an OverlayRootfs', mount.source);
        return { type: 'overlay', target, source: mount.source };
      }
      keys('layers', 'upper', 'work');
      if (!Array.isArray(mount.layers) || mount.layers.length === 0)
        throw optionError(`${option}.layers`, 'an array of at least one directory, or give `source`', mount.layers);
      if ((mount.upper === undefined) !== (mount.work === undefined))
        throw optionError(`${option}.upper`, 'a directory together with `work`, another one beside it', mount.upper);
      return {
        type: 'overlay',
        target,
        layers: check.list(mount.layers, `${option}.layers`, check.absolutePath),
        upper: mount.upper === undefined ? undefined : check.absolutePath(mount.upper, `${option}.upper`),
        work: mount.work === undefined ? undefined : check.absolutePath(mount.work, `${option}.work`),
      };
    default:
      keys();
      return { type: type as 'proc', target };
  }
}
