import type { Subnet } from './ip.js';

/** Of the bridges of this process. Only this host reaches who is there. */
export const bridgeSubnets = new Set<Subnet>();
