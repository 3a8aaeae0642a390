/* Hexadecimal digits. Layer base; any thread; no state. */
#ifndef BASE_HEX_H
#define BASE_HEX_H

/* The value of a digit in either case; -1 for anything else. */
static inline int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

#endif
