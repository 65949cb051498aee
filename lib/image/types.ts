import type { Layer } from '../later.js';

export interface ImageProgress {
  digest: string;
  doneBytes: number;
  totalBytes?: number;
}
export interface TransferOptions {
  signal?: AbortSignal;
  onProgress?: (progress: ImageProgress) => void;
  platform?: { os?: string; architecture?: string; variant?: string };
  auth?: { username: string; password: string } | { token: string };
  insecure?: boolean;
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
