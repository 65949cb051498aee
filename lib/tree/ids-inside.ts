import type { IdMap, IdRange } from '../namespace/types.js';
import type { Attributes } from './files.js';

// Ids as the inside knows them, of files that are looked at from outside.

export interface IdView {
  uid(outside: number): number;
  gid(outside: number): number;
}

/** Who is in the user namespace itself sees them so already. */
export const sameIds: IdView = { uid: (id) => id, gid: (id) => id };

/** What is not mapped is nobody's: user_namespaces(7), "Unmapped user and group IDs". */
const nobody = 65534;

export function idsInside({ uids, gids }: IdMap): IdView {
  const look = (ranges: readonly IdRange[]) => (id: number) => {
    const range = ranges.find(({ outside, count }) => id >= outside && id < outside + count);
    return range ? range.inside + (id - range.outside) : nobody;
  };
  return { uid: look(uids), gid: look(gids) };
}

/** Ids are in two attributes, too: POSIX ACLs, and file capabilities that a user namespace has given. */
export function attributesInside(attributes: Attributes, ids: IdView): Attributes {
  if (ids === sameIds || attributes.size === 0) return attributes;
  return new Map(
    [...attributes].map(([name, value]) => {
      if (name === 'system.posix_acl_access' || name === 'system.posix_acl_default') return [name, aclInside(value, ids)];
      if (name === 'security.capability') return [name, capabilityInside(value, ids)];
      return [name, value];
    }),
  );
}

/** include/uapi/linux/posix_acl_xattr.h: a version, then entries of tag, permissions (16 bits each) and id. */
function aclInside(value: Buffer, ids: IdView): Buffer {
  const inside = Buffer.from(value);
  for (let at = 4; at + 8 <= inside.length; at += 8) {
    const tag = inside.readUInt16LE(at);
    const id = inside.readUInt32LE(at + 4);
    if (tag === 0x02) inside.writeUInt32LE(ids.uid(id), at + 4);
    else if (tag === 0x08) inside.writeUInt32LE(ids.gid(id), at + 4);
  }
  return inside;
}

/** capabilities(7), "File capability versioning": version 3 names the root that it is good for; that of the inside is version 2's. */
function capabilityInside(value: Buffer, ids: IdView): Buffer {
  if (value.length !== 24 || value.readUInt32LE(0) >>> 24 !== 3) return value;
  const root = ids.uid(value.readUInt32LE(20));
  if (root !== 0) {
    const inside = Buffer.from(value);
    inside.writeUInt32LE(root, 20);
    return inside;
  }
  const plain = Buffer.from(value.subarray(0, 20));
  plain.writeUInt32LE(((2 << 24) | (value.readUInt32LE(0) & 0xffffff)) >>> 0, 0);
  return plain;
}
