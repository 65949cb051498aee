// Which table of routes a packet is looked up in: ip-rule(8), linux/fib_rules.h.

import { familyNumber } from './address.js';
import { type Attribute, NLM_F_CREATE, NLM_F_EXCL, type Request, u32 } from './message.js';

const RTM_NEWRULE = 32;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
const FR_ACT_TO_TBL = 1;

export interface Rule {
  readonly family: 4 | 6;
  /** Of packets that nf_tables has marked with this. */
  readonly mark?: number;
  readonly mask?: number;
  readonly table: number;
  readonly priority?: number;
}

export function addRule({ family, mark, mask, table, priority }: Rule): Request {
  const attributes: Attribute[] = [[FRA_TABLE, u32(table)]];
  if (mark !== undefined) attributes.push([FRA_FWMARK, u32(mark)]);
  if (mask !== undefined) attributes.push([FRA_FWMASK, u32(mask)]);
  if (priority !== undefined) attributes.push([FRA_PRIORITY, u32(priority)]);
  return {
    type: RTM_NEWRULE,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    // struct fib_rule_hdr; the table is in its attribute, as its number may be above 255.
    body: Buffer.of(familyNumber(family), 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0),
    attributes,
    step: 'add a rule for routes',
    path: `table ${table}`,
  };
}
