import type { Attributes } from './files.js';
import { ownerAttribute } from './owner-record.js';

// overlayfs keeps its own notes in extended attributes: in trusted.*, which only root of the host has, or with `userxattr` in
// user.*. overlayfs.rst; ovl_xattr_table in fs/overlayfs/super.c. fuse-overlayfs has some of its own besides (can_access_xattr in main.c).

export type OverlayPrefix = 'trusted.overlay.' | 'user.overlay.';

const reserved = /^((trusted|user)\.(overlay|cloister)|user\.fuseoverlayfs)\./;

/** set_fd_opaque() of fuse-overlayfs, where it may not set trusted.overlay.opaque. */
export const fuseOpaque = 'user.fuseoverlayfs.opaque';

/** Not a file's own: a stranger's tar must not bring them, and no layer tells them. */
export const isReserved = (name: string): boolean => reserved.test(name);

/** Labels and measurements of this host's security modules: a stranger does not say what they are. File capabilities are a file's own. */
export const isOfTheHost = (name: string): boolean => name.startsWith('security.') && name !== 'security.capability';

/** What a layer tells of them. */
export function ownAttributes(attributes: Attributes): Attributes {
  const kept = [...attributes].filter(([name]) => !isReserved(name) && !isOfTheHost(name) && name !== ownerAttribute);
  return kept.length === attributes.size ? attributes : new Map(kept);
}
