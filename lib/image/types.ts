import type { Bytes } from '../units.js';
import type { Layer } from './layer.js';

export interface ImageProgress {
  /** Of what is transferred: a compressed layer. '' while it is not known. */
  digest: string;
  doneBytes: number;
  totalBytes?: number;
}
export interface TransferOptions {
  signal?: AbortSignal;
  onProgress?: (progress: ImageProgress) => void;
  /** Of an image for several. Default: this machine's. */
  platform?: { os?: string; architecture?: string; variant?: string };
  auth?: { username: string; password: string } | { token: string };
  /** Plain http. */
  insecure?: boolean;
  /** Registries to ask before the one that the reference names: `host[:port][/prefix]`. For pull only. */
  mirrors?: readonly string[];
  /** Of each layer, uncompressed, and of an archive that has to be unpacked: the more there is, the more it may be a bomb. Default: none. */
  sizeLimit?: Bytes;
}
export interface LayerTree {
  roots: readonly LayerNode[];
}
export interface LayerNode {
  layer: Layer;
  children: readonly LayerNode[];
  images: readonly string[];
}
/** The `config` object of the OCI image configuration, under its own names. */
export interface ImageConfig {
  Env?: string[];
  Entrypoint?: string[];
  Cmd?: string[];
  User?: string;
  WorkingDir?: string;
  StopSignal?: string;
  ExposedPorts?: Record<string, object>;
  Volumes?: Record<string, object>;
  Labels?: Record<string, string>;
}
