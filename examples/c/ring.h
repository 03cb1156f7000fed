#ifndef RING_H
#define RING_H

#include <stddef.h>

/* A ring of at most 8 numbers; the oldest makes room for the newest. */
struct ring {
	int items[8];
	size_t first, len;
};

void ring_push(struct ring *r, int item);
int ring_sum(const struct ring *r);

#endif
