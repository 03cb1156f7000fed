#include <stdio.h>

#include "ring.h"

int main(void)
{
	struct ring r = {0};
	for (int i = 1; i <= 10; i++)
		ring_push(&r, i);
	int sum = ring_sum(&r); /* 3 + … + 10 */
	printf("sum %d\n", sum);
	return sum == 52 ? 0 : 1;
}
