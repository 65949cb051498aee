export { Cgroup } from './cgroup/cgroup.js';
export type * from './cgroup/types.js';
export { CgroupError, ImageError, IsolationError, NetworkError } from './errors.js';
export { reap } from './host/reap.js';
export type * from './host/types.js';
export { Image } from './image/image.js';
export { Layer } from './image/layer.js';
export { LayerStore } from './image/layer-store.js';
export type * from './image/types.js';
export { probe, Sandbox, SandboxPool } from './later.js';
export {
  CgroupNamespace,
  IpcNamespace,
  MountNamespace,
  PidNamespace,
  TimeNamespace,
  UserNamespace,
  UtsNamespace,
} from './namespace/kinds.js';
export { Namespace } from './namespace/namespace.js';
export { NetNamespace } from './namespace/net.js';
export type * from './namespace/types.js';
export { Bridge } from './network/bridge.js';
export type * from './network/types.js';
export { OverlayRootfs } from './rootfs/overlay-rootfs.js';
export type { ApplyReport, Branch, Change, FileType, OverlayOptions } from './rootfs/types.js';
export type * from './security/types.js';
export { runIsolated } from './spawn/run.js';
export { explain, spawnIsolated } from './spawn/spawn.js';
export type * from './spawn/types.js';
export type { Bytes, Limit } from './units.js';
