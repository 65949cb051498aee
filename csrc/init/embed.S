// The init program, as bytes of the addon: binding/init_program.cc hands it out as a sealed memfd.

  .section .rodata
  .globl cloister_init_start
  .hidden cloister_init_start
  .globl cloister_init_end
  .hidden cloister_init_end
  .balign 16
cloister_init_start:
  .incbin "cloister-init"
cloister_init_end:

  .section .note.GNU-stack,"",%progbits
