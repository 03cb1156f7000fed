package security

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fragua.dev/fragua/contract/artifacts"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/internal/sqldb"
)

func (r *testRoom) set(t testing.TB, tenant ident.Tenant, name, value string) error {
	t.Helper()
	sealed, err := r.vault.seal(tenant, name, value)
	if err != nil {
		t.Fatal(err)
	}
	return r.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := r.vault.put(tx, tenant, name, sealed)
		return err
	})
}

func TestReveal(t *testing.T) {
	r := openRoom(t)
	for _, s := range [][3]string{{"a", "X", "1"}, {"a", "Y", strings.Repeat("é", 1000)}, {"b", "X", "2"}} {
		if err := r.set(t, ident.Tenant(s[0]), s[1], s[2]); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.Vault().Reveal(t.Context(), "a", []string{"X", "Y", "X"})
	if err != nil || len(got) != 2 || got["X"] != "1" || got["Y"] != strings.Repeat("é", 1000) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := r.Vault().Reveal(t.Context(), "a", nil); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	got, err = r.Vault().Reveal(t.Context(), "b", []string{"X", "Y", "Z"})
	if !errors.Is(err, artifacts.ErrNoSecret) || !strings.HasSuffix(err.Error(), ": Y, Z") || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := r.Vault().Reveal(t.Context(), "a", make([]string, 65)); err == nil {
		t.Error("any number at once")
	}
}

// TestSealsHold moves and changes rows behind the vault's back.
func TestSealsHold(t *testing.T) {
	r := openRoom(t)
	if err := r.set(t, "a", "X", "hunter2"); err != nil {
		t.Fatal(err)
	}
	var sealed []byte
	if err := r.db.QueryRow(t.Context(), `SELECT sealed FROM secret`).Scan(&sealed); err != nil {
		t.Fatal(err)
	}
	if v, err := r.vault.open("a", "X", sealed); err != nil || v != "hunter2" {
		t.Fatal(v, err)
	}
	for name, c := range map[string]struct {
		tenant ident.Tenant
		name   string
	}{"another tenant": {"b", "X"}, "another name": {"a", "Y"}, "a border moved": {"aX", ""}} {
		if v, err := r.vault.open(c.tenant, c.name, sealed); err == nil {
			t.Errorf("%s: opens as %q", name, v)
		}
	}
	for i := range sealed {
		changed := append([]byte(nil), sealed...)
		changed[i] ^= 1
		if v, err := r.vault.open("a", "X", changed); err == nil {
			t.Fatalf("byte %d changed: opens as %q", i, v)
		}
	}
	for n := range sealed {
		if _, err := r.vault.open("a", "X", sealed[:n]); err == nil {
			t.Fatalf("cut after %d bytes: opens", n)
		}
	}
	again, err := r.vault.seal("a", "X", "hunter2")
	if err != nil || string(again) == string(sealed) {
		t.Error("the same secret looks the same")
	}
}

func TestVaultKeyMustStay(t *testing.T) {
	r := openRoom(t)
	if err := r.set(t, "a", "X", "1"); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(r.cfg.Dir, "vault.key")); err != nil {
		t.Fatal(err)
	}
	if again, err := Open(t.Context(), r.cfg); err == nil || !strings.Contains(err.Error(), "vault.key is gone") {
		if again != nil {
			again.Close()
		}
		t.Errorf("opened with another key: %v", err)
	}
}

func TestVaultIsBounded(t *testing.T) {
	r := openRoom(t)
	sealed, err := r.vault.seal("a", "X", "1")
	if err != nil {
		t.Fatal(err)
	}
	err = r.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		for i := range maxSecrets {
			if _, err := r.vault.put(tx, "a", fmt.Sprintf("S%d", i), sealed); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.set(t, "a", "MORE", "1"); !errors.Is(err, errVaultFull) {
		t.Errorf("%v", err)
	}
	if err := r.set(t, "a", "S1", "2"); err != nil {
		t.Errorf("a full vault cannot be changed: %v", err)
	}
	if err := r.set(t, "b", "X", "1"); err != nil {
		t.Errorf("a full vault of another tenant: %v", err)
	}
}
