package security

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"fragua.dev/fragua/contract/authz"
)

//go:embed policies/*.cedar
var builtin embed.FS

//go:embed fragua.cedarschema
var schemaText []byte

// Bounds of what is read at start.
const maxPolicyFile = 1 << 20

// obligations are what a permit may ask of whoever asked, as annotations of a
// policy: @obligation("read_only"). Others are refused when policies are loaded.
var obligations = map[string]func(action string) bool{
	// every room reads and writes the principal's tenant alone
	"limit_to_tenant": func(string) bool { return true },
	"read_only": func(action string) bool {
		return strings.HasSuffix(action, "::read") || strings.HasSuffix(action, "::logs")
	},
	// no token says by what its owner proved himself
	"requires_mfa": func(string) bool { return false },
}

// A rule is one policy, ready to be asked.
type rule struct {
	id         cedar.PolicyID
	policy     *cedar.Policy
	scope      string // of a permit: the scope that opens it
	reason     string // of a forbid: what to tell
	obligation string
}

// rules are the policies that may speak of one action. Asking only these is what
// keeps a decision from growing with the number of policies.
type rules []rule

// All lets Cedar walk them.
func (r rules) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for i := range r {
			if !yield(r[i].id, r[i].policy) {
				return
			}
		}
	}
}

func (r rules) find(id cedar.PolicyID) *rule {
	for i := range r {
		if r[i].id == id {
			return &r[i]
		}
	}
	return nil
}

// scopes names the scopes of which each opens the action by itself.
func (r rules) scopes() []string {
	var out []string
	for i := range r {
		if s := r[i].scope; s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// An action is one thing that can be done, as the schema declares it.
type action struct {
	uid       cedar.EntityUID
	resources map[string]shape // by type
	context   shape
	rules     rules
}

// shape is what attributes an object may have, and of which kind.
type shape map[string]kind

type kind uint8

const (
	kindString kind = iota + 1
	kindBool
	kindLong
	kindStrings
)

func (k kind) String() string {
	return [...]string{"nothing", "a text", "true or false", "a whole number", "a list of texts"}[k]
}

// policies are everything that decisions are made from. They do not change.
type policies struct {
	actions map[string]*action
	scopes  []string // every scope that some policy knows, sorted
}

// A PolicyFile is the text of Cedar policies, and what it is called.
type PolicyFile struct {
	Name string
	Text []byte
}

// ReadPolicies returns what decides by the policies of files, by those of the house
// when there are none; or every fault in them, each with file and place.
func ReadPolicies(files ...PolicyFile) (decide func(authz.Question) authz.Answer, err error) {
	if len(files) == 0 {
		p, err := load(nil)
		if err != nil {
			return nil, err
		}
		return p.decide, nil
	}
	p, check, err := empty()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var faults []error
	for _, f := range files {
		faults = append(faults, p.addFile(f.Name, f.Text, check, seen)...)
	}
	return p.decide, errors.Join(faults...)
}

// empty returns what the schema declares, without policies, and what checks these.
func empty() (*policies, *validate.Validator, error) {
	var s schema.Schema
	s.SetFilename("fragua.cedarschema")
	if err := s.UnmarshalCedar(schemaText); err != nil {
		return nil, nil, fmt.Errorf("policy schema: %w", err)
	}
	declared, err := s.Resolve()
	if err != nil {
		return nil, nil, fmt.Errorf("policy schema: %w", err)
	}
	p, err := declare(declared)
	if err != nil {
		return nil, nil, fmt.Errorf("policy schema: %w", err)
	}
	return p, validate.New(declared, validate.WithStrict()), nil
}

// load reads the schema and the policies of the house, and those of extra, and
// returns every fault that it finds in them.
func load(extra fs.FS) (*policies, error) {
	p, check, err := empty()
	if err != nil {
		return nil, err
	}
	house, err := fs.Sub(builtin, "policies")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	err = p.add(house, check, seen)
	if extra != nil {
		err = errors.Join(err, p.add(extra, check, seen))
	}
	if err != nil {
		return nil, err
	}
	for _, a := range p.actions {
		for _, s := range a.rules.scopes() {
			if !slices.Contains(p.scopes, s) {
				p.scopes = append(p.scopes, s)
			}
		}
	}
	slices.Sort(p.scopes)
	return p, nil
}

// declare makes the table of what can be asked.
func declare(s *resolved.Schema) (*policies, error) {
	p := &policies{actions: map[string]*action{}}
	for uid, a := range s.Actions {
		if a.AppliesTo == nil {
			continue
		}
		context, err := shapeOf(a.AppliesTo.Context)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", uid.ID, err)
		}
		made := &action{uid: uid, resources: map[string]shape{}, context: context}
		for _, r := range a.AppliesTo.Resources {
			sh, err := shapeOf(s.Entities[r].Shape)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r, err)
			}
			if sh["tenant"] != kindString {
				return nil, fmt.Errorf("%s: has no tenant", r)
			}
			made.resources[string(r)] = sh
		}
		p.actions[string(uid.ID)] = made
	}
	return p, nil
}

func shapeOf(r resolved.RecordType) (shape, error) {
	out := shape{}
	for name, a := range r {
		switch t := a.Type.(type) {
		case resolved.StringType:
			out[string(name)] = kindString
		case resolved.BoolType:
			out[string(name)] = kindBool
		case resolved.LongType:
			out[string(name)] = kindLong
		case resolved.SetType:
			if _, ok := t.Element.(resolved.StringType); !ok {
				return nil, fmt.Errorf("%s: only sets of String can be asked about", name)
			}
			out[string(name)] = kindStrings
		default:
			return nil, fmt.Errorf("%s: no question can hold this type", name)
		}
	}
	return out, nil
}

// add reads the policies of a folder.
func (p *policies) add(dir fs.FS, check *validate.Validator, seen map[string]bool) error {
	files, err := fs.Glob(dir, "*.cedar")
	if err != nil {
		return err
	}
	var faults []error
	for _, file := range files {
		if info, err := fs.Stat(dir, file); err != nil || info.Size() > maxPolicyFile {
			faults = append(faults, errors.Join(fmt.Errorf("%s: want at most %d bytes", file, maxPolicyFile), err))
			continue
		}
		text, err := fs.ReadFile(dir, file)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		faults = append(faults, p.addFile(file, text, check, seen)...)
	}
	return errors.Join(faults...)
}

// addFile reads the policies of one file.
func (p *policies) addFile(name string, text []byte, check *validate.Validator, seen map[string]bool) (faults []error) {
	list, err := cedar.NewPolicyListFromBytes(name, text)
	if err != nil {
		_, at, found := strings.Cut(err.Error(), "<input>") // Cedar knows the place, and not the name
		if !found {
			at = ": " + err.Error()
		}
		return []error{fmt.Errorf("%s%s", name, at)}
	}
	for _, one := range list {
		if err := p.addOne(one, check, seen); err != nil {
			at := one.Position()
			faults = append(faults, fmt.Errorf("%s:%d:%d: %w", name, at.Line, at.Column, err))
		}
	}
	return faults
}

func (p *policies) addOne(one *cedar.Policy, check *validate.Validator, seen map[string]bool) error {
	notes := one.Annotations()
	r := rule{id: cedar.PolicyID(notes["id"]), policy: one, scope: string(notes["scope"]), reason: string(notes["reason"]), obligation: string(notes["obligation"])}
	switch {
	case r.id == "":
		return errors.New(`a policy needs an @id("…")`)
	case seen[string(r.id)]:
		return fmt.Errorf("another policy is named %s", r.id)
	case one.Effect() == cedar.Forbid && r.reason == "":
		return fmt.Errorf(`%s: a forbid needs a @reason("…") to tell`, r.id)
	case r.scope != "" && !scopeForm.MatchString(r.scope):
		return fmt.Errorf("%s: a scope is written job:create", r.id)
	case r.obligation != "" && obligations[r.obligation] == nil:
		return fmt.Errorf("%s: nobody knows the obligation %s", r.id, r.obligation)
	}
	for name := range notes {
		if !slices.Contains([]string{"id", "scope", "reason", "obligation"}, string(name)) {
			return fmt.Errorf("%s: nobody knows the annotation @%s", r.id, name)
		}
	}
	seen[string(r.id)] = true
	tree := (*ast.Policy)(one.AST())
	if err := check.Policy(string(r.id), tree); err != nil {
		return fmt.Errorf("%s: %w", r.id, err)
	}
	for _, a := range p.actions {
		if speaksOf(tree.Action, a.uid) {
			a.rules = append(a.rules, r)
		}
	}
	return nil
}

// speaksOf says whether a policy with this scope can match the action. The house
// has no groups of actions, so that being in one is being it.
func speaksOf(scope ast.IsActionScopeNode, a cedar.EntityUID) bool {
	switch s := scope.(type) {
	case ast.ScopeTypeEq:
		return s.Entity == a
	case ast.ScopeTypeIn:
		return s.Entity == a
	case ast.ScopeTypeInSet:
		return slices.Contains(s.Entities, a)
	}
	return true
}
