import { expect, test } from 'vitest';
import { networkAdvice } from '../../lib/host/network-hints.js';

test('a kernel without packet filters of single links is told so, and only for that step', () => {
  const refused = { path: 'clv1-aaaaaa', errno: 95, words: undefined };
  expect([networkAdvice({ ...refused, step: 'confine the link' }), networkAdvice({ ...refused, step: 'make the bridge' })]).toMatchInlineSnapshot(`
    [
      {
        "hint": "It is CONFIG_NF_TABLES_NETDEV with CONFIG_NETFILTER_INGRESS. Without \`bridge\`, egress needs neither.",
        "what": "this kernel has no nf_tables for single links, which hold what a sandbox with egress sends on a bridge",
      },
      undefined,
    ]
  `);
});
