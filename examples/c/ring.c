#include "ring.h"

enum { MOST = sizeof(((struct ring *)0)->items) / sizeof(int) };

void ring_push(struct ring *r, int item)
{
	r->items[(r->first + r->len) % MOST] = item;
	if (r->len < MOST)
		r->len++;
	else
		r->first = (r->first + 1) % MOST;
}

int ring_sum(const struct ring *r)
{
	int sum = 0;
	for (size_t i = 0; i < r->len; i++)
		sum += r->items[(r->first + i) % MOST];
	return sum;
}
