package logstore

import "sync"

const (
	maxCached  = 8   // chunks
	maxReading = 2   // chunks that are unpacked at the same time
	maxReaders = 512 // of all logs, at the same time
)

// cache holds the chunks that were read last. Readers come back to it for every
// few kilobytes, and keep nothing of a chunk while a client lets them wait: what
// they hold together is bounded, however many they are.
type cache struct {
	turn chan struct{}
	mu   sync.Mutex
	have []cached // oldest first
}

type cached struct {
	of     chunkName
	frames []byte
}

// chunkName tells chunks of all logs apart.
type chunkName struct {
	log key
	at  int64
	sum uint32
}

func newCache() *cache { return &cache{turn: make(chan struct{}, maxReading)} }

func (c *cache) find(of chunkName) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, x := range c.have {
		if x.of == of {
			c.have = append(append(c.have[:i:i], c.have[i+1:]...), x)
			return x.frames, true
		}
	}
	return nil, false
}

// frames returns a chunk's frames, which read unpacks unless they are at hand.
func (c *cache) frames(of chunkName, read func() ([]byte, error)) ([]byte, error) {
	if frames, ok := c.find(of); ok {
		return frames, nil
	}
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if frames, ok := c.find(of); ok {
		return frames, nil
	}
	frames, err := read()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.have = append(c.have, cached{of, frames}); len(c.have) > maxCached {
		c.have = append(c.have[:0:0], c.have[1:]...)
	}
	return frames, nil
}
