# The header of a PE32+ image (UEFI specification 2.10, 2.1.1) before the loader's code. The file is laid out as
# it is in memory, and its code runs anywhere, so nothing is relocated.

        .section .head, "a"
base:
        .ascii  "MZ"
        .skip   58
        .long   pe - base

pe:     .ascii  "PE\0\0"
        .word   0x8664                  # x86-64
        .word   1                       # sections
        .long   0                       # no time: the same file from the same source
        .long   0, 0
        .word   sections - optional
        .word   0x0206                  # executable, without line numbers and symbols

optional:
        .word   0x020b                  # PE32+
        .byte   1, 0
        .long   text_bytes
        .long   0, 0
        .long   text_start              # the first function
        .long   text_start
        .quad   0                       # wherever there is room
        .long   4096, 512               # alignment in memory and in the file
        .word   0, 0, 0, 0, 0, 0
        .long   0
        .long   image_bytes
        .long   4096                    # of headers
        .long   0
        .word   10                      # an EFI application
        .word   0x0100                  # no page is both written to and run
        .quad   0, 0, 0, 0
        .long   0
        .long   6                       # data directories, all empty
        .quad   0, 0, 0, 0, 0, 0

sections:
        .ascii  ".text\0\0\0"
        .long   text_bytes
        .long   text_start
        .long   text_bytes
        .long   text_start
        .long   0, 0
        .word   0, 0
        .long   0x60000020              # code: read and run

        .section .note.GNU-stack, "", @progbits
