import type { Layer } from '../image/layer.js';
import type { IdMap } from '../namespace/types.js';
import type { Bytes } from '../units.js';

export type FileType = 'file' | 'directory' | 'symlink' | 'fifo' | 'socket' | 'block-device' | 'char-device';
export interface Change {
  path: string;
  /** The name's own bytes: a Linux file name need not be UTF-8. */
  pathBytes: Buffer;
  kind: 'added' | 'modified' | 'deleted';
  type: FileType;
}
export interface ApplyReport {
  applied: Change[];
  skipped: Change[];
  conflicts: { change: Change; reason: string }[];
}
export interface Branch {
  path: string;
  writable: boolean;
  attributes: readonly string[];
}
export interface OverlayOptions {
  /** Base first, as in an OCI manifest. A Layer brings no parents with it: name them. */
  layers: readonly (string | Layer)[];
  upper?: 'tmpfs' | 'disk' | (string & {});
  size?: Bytes;
  driver?: 'auto' | 'overlay' | 'aufs' | 'fuse-overlayfs';
  volatile?: boolean;
  idMap?: 'auto' | 'self' | IdMap;
}
